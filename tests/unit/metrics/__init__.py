"""Tests of ``promgun/metrics``."""
