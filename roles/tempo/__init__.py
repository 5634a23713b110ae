"""Tempo: traces in object storage or on disk."""
