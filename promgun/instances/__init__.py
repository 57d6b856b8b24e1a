"""Which servers run, and how to reach their page."""
