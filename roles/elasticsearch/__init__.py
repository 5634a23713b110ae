"""Elasticsearch: the log store."""
