"""Telemetry agents of a host: node_exporter, OpenTelemetry Collector, Filebeat, in one confined slice."""
