"""Gunicorn's application and arbiter with promgun's additions; everything that runs in the master."""
