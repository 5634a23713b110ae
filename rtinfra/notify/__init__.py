"""Notifications to people: one place that decides what goes out, to whom, how often."""
