"""The real-time application MXRC, or the reference workload in its place."""
