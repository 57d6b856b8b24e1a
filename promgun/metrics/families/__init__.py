"""The metric families, one module for each group.

A family's constant has its name in capitals, without ``gunicorn_`` or ``promgun_`` and without ``_total``.
"""
