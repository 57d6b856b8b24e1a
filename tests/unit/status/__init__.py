"""Tests of ``promgun/status``."""
