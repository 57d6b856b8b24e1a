"""``python -m promgun``."""

from promgun.cli.main import main

if __name__ == "__main__":
    main()
