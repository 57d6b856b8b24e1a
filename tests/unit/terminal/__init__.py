"""Tests of ``promgun/terminal``."""
