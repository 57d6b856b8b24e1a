"""Tests of ``promgun/config``."""
