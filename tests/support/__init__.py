"""Harness, clients and fixtures that the tests share."""
