"""Tests of ``promgun/system``."""
