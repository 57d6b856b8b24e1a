"""Tests of ``promgun/store``."""
