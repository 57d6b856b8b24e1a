"""Tests that run real servers."""
