"""Families to text: Prometheus, OpenMetrics, JSON, and the table of the contract."""
