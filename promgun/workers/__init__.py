"""Instrumented worker classes, one module per ``--worker-type``."""
