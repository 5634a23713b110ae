"""Grafana: dashboards from the same models."""
