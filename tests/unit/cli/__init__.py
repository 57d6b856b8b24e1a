"""Tests of ``promgun/cli``."""
