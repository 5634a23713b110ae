"""Benchmarks: each compares this project with a peer or holds it against a limit, and fails when it loses."""
