"""Central OpenTelemetry Collectors: two or more, with persistent queues, routing each tenant to the backends."""
