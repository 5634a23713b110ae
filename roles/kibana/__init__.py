"""Kibana: the log store's user interface."""
