"""The preflight on a host: is it ready for live operation? Run by a timer and on demand."""
