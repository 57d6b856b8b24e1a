"""Tests of ``promgun/exposition``."""
