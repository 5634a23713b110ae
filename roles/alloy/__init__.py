"""Grafana Alloy: the unified collector."""
