"""Tests of ``promgun/workers``."""
