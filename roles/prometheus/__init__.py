"""Prometheus: metrics, rules."""
