"""Gunicorn's application and arbiter with our named seams; everything that runs in the master."""
