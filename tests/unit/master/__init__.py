"""Tests of ``promgun/master``."""
