"""Tests of ``promgun/collect``."""
