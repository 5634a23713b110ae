"""Jaeger: traces, on disk."""
