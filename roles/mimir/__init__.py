"""Mimir: metrics of many tenants."""
