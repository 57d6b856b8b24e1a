"""How metrics are shown: exposition formats and terminal tables."""
