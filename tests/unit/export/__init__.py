"""Tests of ``promgun/export``."""
