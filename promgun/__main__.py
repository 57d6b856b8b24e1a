"""``python -m promgun``."""

from promgun.cli.entry import start

if __name__ == "__main__":
    start()
