"""Tests of ``promgun/instances``."""
