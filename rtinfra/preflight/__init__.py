"""Preflight: is this host ready for live operation? Checks, verdict, metrics, evidence."""
