"""Hooks of frameworks, and patterns."""
