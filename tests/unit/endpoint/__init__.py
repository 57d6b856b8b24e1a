"""Tests of ``promgun/endpoint``."""
