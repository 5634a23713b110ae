"""Daily work with the telemetry programs of all hosts: `rtinfra stack`."""
