"""Datasources of Grafana: one for each backend and tenant of the site, and the links between them (OB-14, OB-15).

The uids are fixed: dashboards and links contain them. A header is no isolation: who may see one tenant's datasource
here sees the others' too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roles.site import Site

ORG_HEADER = "X-Scope-OrgID"
#: Where the password of Elasticsearch's reader is inside the container.
READER_PASSWORD = "/etc/grafana/elastic_reader"  # nosec B105 - the file that holds it
#: Name of Elasticsearch's user that may only read logs; the role elasticsearch makes it.
READER = "rtinfra-reader"
#: Around a span, logs and metrics of this long before and after are shown.
_SHIFTS = {"spanStartTimeShift": "-5m", "spanEndTimeShift": "5m"}


def variable(expression: str) -> str:
    """Return one of Grafana's own variables for a provisioning file, where a single $ means the environment."""
    return f"$${{{expression}}}"


def uid(role: str, tenant: str | None = None) -> str:
    """Return the fixed uid of a backend's datasource, for one tenant where it knows tenants."""
    return role if tenant is None else f"{role}-{tenant}"


def metrics_uid(site: Site, tenant: str) -> str | None:
    """Return the datasource that has a tenant's metrics: where the gateways send them, else what there is."""
    order = ("mimir", "prometheus") if site.telemetry.metrics == "mimir" else ("prometheus", "mimir")
    for role in order:
        if site.members(role):
            return uid(role, tenant if role == "mimir" else None)
    return None


def traces_uid(site: Site, tenant: str) -> str | None:
    """Return the datasource that has a tenant's traces."""
    order = ("tempo", "jaeger") if site.telemetry.traces == "tempo" else ("jaeger", "tempo")
    for role in order:
        if site.members(role):
            return uid(role, tenant if role == "tempo" else None)
    return None


def logs_uid(site: Site, tenant: str) -> str | None:
    """Return the datasource that has a tenant's logs."""
    order = ("elasticsearch", "loki") if site.telemetry.logs == "elasticsearch" else ("loki", "elasticsearch")
    for role in order:
        if site.members(role):
            return uid(role, tenant if role == "loki" else None)
    return None


def provisioning(site: Site) -> dict[str, Any]:
    """Return the provisioning file: what it does not name is removed."""
    return {"apiVersion": 1, "prune": True, "datasources": list(datasources(site))}


def datasources(site: Site) -> Iterator[dict[str, Any]]:
    """Return every datasource of the site. Of several hosts of a role the first is asked; the cluster has the rest."""
    own = site.telemetry.tenant
    urls = {role: site.urls(role)[0] for role in ("loki", "tempo", "mimir") if site.members(role)}
    for url in site.urls("prometheus")[:1]:
        yield _source("prometheus", "Prometheus", "prometheus", url, _metrics(site, own, "Prometheus"))
    for url in site.urls("alertmanager")[:1]:
        yield _source("alertmanager", "Alertmanager", "alertmanager", url, {"implementation": "prometheus"})
    for url in site.urls("jaeger", "ui_port")[:1]:
        yield _source("jaeger", "Jaeger", "jaeger", url, _traces(site, own))
    for url in site.urls("elasticsearch")[:1]:
        yield _elasticsearch(site, own, url)
    for tenant in site.telemetry.tenants:
        if "loki" in urls:
            yield _tenant("loki", "Loki", "loki", tenant, urls["loki"], _loki(site, tenant))
        if "tempo" in urls:
            service_map = {"serviceMap": {"datasourceUid": metrics_uid(site, tenant)}}
            extra = service_map if metrics_uid(site, tenant) else {}
            yield _tenant("tempo", "Tempo", "tempo", tenant, urls["tempo"], _traces(site, tenant) | extra)
        if "mimir" in urls:
            url = f"{urls['mimir']}/prometheus"
            yield _tenant("mimir", "Mimir", "prometheus", tenant, url, _metrics(site, tenant, "Mimir"))


def _source(identity: str, name: str, kind: str, url: str, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "uid": identity,
        "name": name,
        "type": kind,
        "access": "proxy",
        "url": url,
        "editable": False,
        "isDefault": identity == "prometheus",
        "jsonData": data,
        **more,
    }


def _tenant(role: str, name: str, kind: str, tenant: str, url: str, data: dict[str, Any]) -> dict[str, Any]:
    return _source(
        uid(role, tenant),
        f"{name} {tenant}",
        kind,
        url,
        {"httpHeaderName1": ORG_HEADER, **data},
        secureJsonData={"httpHeaderValue1": tenant},
    )


def _metrics(site: Site, tenant: str, flavour: str) -> dict[str, Any]:
    """Prometheus and what speaks like it; an exemplar leads to its trace."""
    traces = traces_uid(site, tenant)
    found: dict[str, Any] = {"httpMethod": "POST", "prometheusType": flavour}
    if site.members("alertmanager"):
        found["alertmanagerUid"] = uid("alertmanager")
    if traces:
        # Tempo's generator writes traceID, OpenTelemetry's libraries write trace_id.
        found["exemplarTraceIdDestinations"] = [
            {"name": name, "datasourceUid": traces} for name in ("trace_id", "traceID")
        ]
    return found


def _traces(site: Site, tenant: str) -> dict[str, Any]:
    """Jaeger and Tempo; a span leads to the logs with its trace's id and to the metrics of its service."""
    found: dict[str, Any] = {"nodeGraph": {"enabled": True}}
    trace, service = variable("__trace.traceId"), variable('__span.tags["service.name"]')
    logs, metrics = logs_uid(site, tenant), metrics_uid(site, tenant)
    if logs:
        query = f'trace.id:"{trace}"' if logs == uid("elasticsearch") else f'{{service_name="{service}"}} |= "{trace}"'
        found["tracesToLogsV2"] = {**_SHIFTS, "datasourceUid": logs, "customQuery": True, "query": query}
    if metrics:
        found["tracesToMetrics"] = {
            **_SHIFTS,
            "datasourceUid": metrics,
            "queries": [
                {
                    "name": "Requests of this service",
                    "query": f'sum by (status) (rate(http_requests_total{{service="{service}"}}[5m]))',
                },
                {
                    "name": "Missed deadlines at this time",
                    "query": "sum by (host) (increase(mxrc_rt_deadline_miss_count_total[5m]))",
                },
            ],
        }
    return found


def _loki(site: Site, tenant: str) -> dict[str, Any]:
    """Loki; the id in a record leads to its trace, be it structured metadata or in the JSON of the line."""
    traces = traces_uid(site, tenant)
    if not traces:
        return {}
    link = {"url": variable("__value.raw"), "datasourceUid": traces, "urlDisplayLabel": "Trace"}
    return {
        "derivedFields": [
            {**link, "name": "trace_id", "matcherType": "label", "matcherRegex": "trace_id"},
            {**link, "name": "trace.id", "matcherType": "regex", "matcherRegex": r'"trace\.id":\s*"(\w+)"'},
        ]
    }


def _elasticsearch(site: Site, tenant: str, url: str) -> dict[str, Any]:
    traces = traces_uid(site, tenant)
    data: dict[str, Any] = {
        # Filebeat's indices have a day in their names, those of the gateways a tenant, too.
        "index": "mxrc-logs-*",
        "timeField": "@timestamp",
        "logMessageField": "message",
        "logLevelField": "log.level",
    }
    if traces:
        data["dataLinks"] = [
            {"field": "trace.id", "url": variable("__value.raw"), "datasourceUid": traces, "urlDisplayLabel": "Trace"}
        ]
    return _source(
        uid("elasticsearch"),
        "Elasticsearch",
        "elasticsearch",
        url,
        data,
        basicAuth=True,
        basicAuthUser=READER,
        # Read by Grafana when it starts; the password is not in this file.
        secureJsonData={"basicAuthPassword": f"$__file{{{READER_PASSWORD}}}"},
    )
