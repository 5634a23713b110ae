"""Tests with real servers on loopback: Redis, PostgreSQL, node_exporter, age."""
