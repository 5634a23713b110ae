"""Loki: logs."""
