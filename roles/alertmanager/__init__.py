"""Alertmanager: who hears of what, and the alert log that is always there."""
