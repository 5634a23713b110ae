"""What datasources of Grafana have in common that belong to different roles (OB-14, OB-15)."""

from __future__ import annotations

from typing import Final

from roles.facets import Links

#: Around a span, logs and metrics of this long before and after are shown.
_SHIFTS: Final = {"spanStartTimeShift": "-5m", "spanEndTimeShift": "5m"}
#: The id of a span's trace and the name of its service, as Grafana's own variables in a provisioning file.
TRACE: Final = "$${__trace.traceId}"
SERVICE: Final = '$${__span.tags["service.name"]}'


def trace_link(traces: str) -> dict[str, object]:
    """Return the link from a value that is the id of a trace to that trace."""
    return {"url": "$${__value.raw}", "datasourceUid": traces, "urlDisplayLabel": "Trace"}


def metrics_options(flavour: str, links: Links) -> dict[str, object]:
    """Return the options of Prometheus and what speaks like it; an exemplar leads to its trace."""
    found: dict[str, object] = {"httpMethod": "POST", "prometheusType": flavour}
    if links.alerts:
        found["alertmanagerUid"] = links.alerts
    if links.traces:
        # Generators of span metrics write traceID, OpenTelemetry's libraries write trace_id.
        found["exemplarTraceIdDestinations"] = [
            {"name": name, "datasourceUid": links.traces} for name in ("trace_id", "traceID")
        ]
    return found


def trace_options(links: Links) -> dict[str, object]:
    """Return the options of a store of traces; a span leads to the logs of its trace and the metrics of its service."""
    found: dict[str, object] = {"nodeGraph": {"enabled": True}}
    if links.logs:
        found["tracesToLogsV2"] = {
            **_SHIFTS,
            "datasourceUid": links.logs,
            "customQuery": True,
            "query": links.logs_query,
        }
    if links.metrics:
        found["tracesToMetrics"] = {
            **_SHIFTS,
            "datasourceUid": links.metrics,
            "queries": [
                {
                    "name": "Requests of this service",
                    "query": f'sum by (status) (rate(http_requests_total{{service="{SERVICE}"}}[5m]))',
                },
                {
                    "name": "Missed deadlines at this time",
                    "query": "sum by (host) (increase(mxrc_rt_deadline_miss_count_total[5m]))",
                },
            ],
        }
    return found
