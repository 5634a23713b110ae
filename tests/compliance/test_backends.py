"""Backends: the programs that store and show telemetry do what they are set to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest
import yaml

from roles.agents.model import AGENTS
from roles.alloy import model as alloy_model
from roles.alloy.model import ALLOY
from roles.elasticsearch.model import ELASTICSEARCH
from roles.garage.model import GARAGE
from roles.grafana.model import GRAFANA
from roles.host import HostConfig
from roles.jaeger import model as jaeger_model
from roles.jaeger.model import JAEGER
from roles.jaeger.role import traced_applications
from roles.kibana.model import KIBANA
from roles.loki import model as loki_model
from roles.loki.model import LOKI
from roles.mimir import model as mimir_model
from roles.mimir.model import MIMIR
from roles.prometheus import model as prometheus_model
from roles.prometheus.model import PROMETHEUS
from roles.rt_app.model import RT_APP
from roles.shape import FleetView
from roles.shared import TELEMETRY
from roles.tempo import model as tempo_model
from roles.tempo.model import TEMPO
from rtinfra.facts.http import HttpAnswer
from rtinfra.stack_programs import Program
from rtinfra.verify import expect, telemetry
from rtinfra.verify.asking import Asker, basic, known
from rtinfra.verify.look.answers import Answers, samples
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.look.units import Units

_LOG_TEMPLATE = "mxrc-logs"
# OB-2, to the letter.
_LOG_FIELDS = {
    "@timestamp": "date",
    "log.level": "keyword",
    "process.name": "keyword",
    "message": "text",
    "trace.id": "keyword",
    "mxrc.task_id": "keyword",
}


def _json(answer: HttpAnswer) -> Any:
    return expect.found(answer.json, f"JSON from {answer.url}", f"HTTP status {answer.status}")


def _yaml(answer: HttpAnswer) -> Mapping[str, Any]:
    expect.equal(answer.status, 200, f"HTTP status of {answer.url}")
    document: Mapping[str, Any] = yaml.safe_load(answer.body)
    return document


# --- Prometheus (OB-13)


@pytest.fixture
def prometheus(config: HostConfig, view: FleetView) -> str:
    """Where Prometheus answers."""
    return view.url(config[PROMETHEUS].port)


# Until Prometheus has measured everything at least once, and remembers it.
_ROUNDS = 4


@pytest.fixture
def measured(
    computer: Computer,
    units: Units,
    answers: Answers,
    programs: tuple[Program, ...],
    asker: Asker,
    prometheus: str,
    config: HostConfig,
) -> Callable[[str, Callable[[Any], bool]], Any]:
    """Return what Prometheus says at a path; asked again while it is too young to know and the answer does not hold."""
    settings = expect.found(config[PROMETHEUS], "settings of Prometheus", "none")
    unit = next(program.unit for program in programs if program.role == "prometheus")
    age = units.seconds_active(unit, computer.uptime)
    seconds = _ROUNDS * settings.scrape_interval.milliseconds / 1000

    def look(path: str, holds: Callable[[Any], bool]) -> Any:
        def fits(answer: HttpAnswer) -> bool:
            return bool(answer.json) and holds(answer.json)

        return _json(telemetry.settled(answers.last(prometheus + path), age, asker, fits, seconds))

    return look


@pytest.fixture
def flags(answers: Answers, prometheus: str) -> Mapping[str, str]:
    """What Prometheus was really started with."""
    found: Mapping[str, str] = _json(answers.last(prometheus + prometheus_model.FLAGS_PAGE))["data"]
    return found


@pytest.fixture
def effective(answers: Answers, prometheus: str) -> Mapping[str, Any]:
    """The configuration Prometheus works with."""
    document: Mapping[str, Any] = yaml.safe_load(
        _json(answers.last(prometheus + prometheus_model.CONFIG_PAGE))["data"]["yaml"]
    )
    return document


@pytest.mark.on("prometheus")
@pytest.mark.control(id="OB-13.1", severity="high", title="Prometheus keeps metrics as long as it is set")
def test_prometheus_retention(flags: Mapping[str, str], config: HostConfig) -> None:
    settings = expect.found(config[PROMETHEUS], "settings of Prometheus", "none")
    telemetry.same_duration(flags.get("storage.tsdb.retention.time"), settings.retention, "retention")


@pytest.mark.on("prometheus")
@pytest.mark.control(id="OB-13.2", severity="high", title="Prometheus reaches everything it is to measure")
def test_prometheus_targets(measured: Callable[[str, Callable[[Any], bool]], Any]) -> None:
    def down(document: Any) -> list[str]:
        return [
            f"{target['scrapeUrl']} ({target['lastError'] or target['health']})"
            for target in document["data"]["activeTargets"]
            if target["health"] != "up"
        ]

    found = measured(prometheus_model.TARGETS_PAGE, lambda document: not down(document))
    expect.at_least(len(found["data"]["activeTargets"]), 1, "targets")
    expect.nothing(down(found), "targets that are not up")


@pytest.mark.on("prometheus")
@pytest.mark.control(id="OB-13.3", severity="high", title="Prometheus takes what an outage has held back")
def test_prometheus_out_of_order(effective: Mapping[str, Any], config: HostConfig) -> None:
    settings = expect.found(config[PROMETHEUS], "settings of Prometheus", "none")
    window = effective.get("storage", {}).get("tsdb", {}).get("out_of_order_time_window")
    telemetry.same_duration(window, settings.out_of_order_window, "samples may be late by")


@pytest.mark.on("prometheus")
@pytest.mark.control(id="OB-13.4", severity="high", title="Prometheus accepts metrics that are sent to it")
def test_prometheus_receives(flags: Mapping[str, str]) -> None:
    expect.entries(flags, {"web.enable-remote-write-receiver": "true"}, "flags")
    # A feature of Prometheus 2, a flag of Prometheus 3.
    otlp = flags.get("web.enable-otlp-receiver") == "true" or "otlp-write-receiver" in flags.get("enable-feature", "")
    expect.equal(otlp, True, "it takes OTLP")


@pytest.mark.on("prometheus")
@pytest.mark.control(id="OB-13.5", severity="medium", title="Prometheus measures and judges as often as it is set")
def test_prometheus_intervals(effective: Mapping[str, Any], config: HostConfig) -> None:
    settings = expect.found(config[PROMETHEUS], "settings of Prometheus", "none")
    times = effective.get("global", {})
    telemetry.same_duration(times.get("scrape_interval"), settings.scrape_interval, "time between measurements")
    telemetry.same_duration(times.get("evaluation_interval"), settings.evaluation_interval, "time between judgements")


@pytest.mark.on("prometheus")
@pytest.mark.control(id="OB-13.6", severity="high", title="Prometheus has measurements of every host and control loop")
def test_prometheus_sees_all(measured: Callable[[str, Callable[[Any], bool]], Any], view: FleetView) -> None:
    def number(document: Any) -> int:
        result = document["data"]["result"]
        return int(result[0]["value"][1]) if result else 0

    def enough(required: int, document: Any) -> bool:
        return number(document) >= required

    for expression, required, what in (
        (prometheus_model.HOSTS_SEEN, len(view.members(AGENTS)), "hosts with measurements"),
        (prometheus_model.LOOPS_SEEN, len(view.members(RT_APP)), "control loops with measurements"),
    ):
        found = measured(prometheus_model.query(expression), partial(enough, required))
        expect.at_least(number(found), required, what)


# --- Jaeger (OB-4)


# One cycle a second is noted, one of ten is kept as shipped, and it is on its way for some seconds.
_FIRST_TRACE_SECONDS = 120


@pytest.mark.on("jaeger")
@pytest.mark.control(id="OB-4.10", severity="high", title="Jaeger has traces of every robot program that sends some")
def test_jaeger_services(
    answers: Answers,
    units: Units,
    computer: Computer,
    programs: tuple[Program, ...],
    asker: Asker,
    config: HostConfig,
    view: FleetView,
) -> None:
    if view.telemetry.traces != "jaeger":
        expect.not_applicable(f"traces are sent to {view.telemetry.traces} (telemetry.traces)")
    settings = expect.found(config[JAEGER], "settings of Jaeger", "none")
    sending = traced_applications(view)
    if not sending:
        expect.not_applicable("no host of the inventory runs a robot program that traces its cycles, and agents")
    unit = next(program.unit for program in programs if program.role == "jaeger")
    age = units.seconds_active(unit, computer.uptime)
    url = view.url(settings.ui_port)
    for service in sending:

        def has_it(answer: HttpAnswer) -> bool:
            return jaeger_model.CYCLE_SPAN in _operations(answer)

        first = answers.last(url + jaeger_model.operations(service))
        found = telemetry.settled(first, age, asker, has_it, _FIRST_TRACE_SECONDS)
        operations = ", ".join(sorted(_operations(found))) or "none"
        expect.that(has_it(found), operations, f"{jaeger_model.CYCLE_SPAN} among them", f"operations of {service}")


def _operations(answer: HttpAnswer) -> set[str]:
    document = answer.json
    return set((document.get("data") if isinstance(document, dict) else None) or ())


# --- Loki, Tempo, Mimir (OB-8, OB-9, OB-10); what is the tenants' is in test_tenants.py


@pytest.mark.on("loki")
@pytest.mark.control(id="OB-8.1", severity="high", title="Loki stores logs in its current format")
def test_loki_schema(answers: Answers, config: HostConfig, view: FleetView) -> None:
    seen = _yaml(answers.last(view.url(config[LOKI].port, loki_model.CONFIG_PAGE)))
    newest = seen["schema_config"]["configs"][-1]
    expect.entries(newest, {"schema": "v13", "store": "tsdb"}, "newest schema")


@pytest.mark.on("loki")
@pytest.mark.control(id="OB-8.2", severity="medium", title="Loki keeps fields beside a log line and finds patterns")
def test_loki_features(answers: Answers, config: HostConfig, view: FleetView) -> None:
    seen = _yaml(answers.last(view.url(config[LOKI].port, loki_model.CONFIG_PAGE)))
    expect.entries(seen["limits_config"], {"allow_structured_metadata": True}, "structured metadata")
    expect.entries(seen["pattern_ingester"], {"enabled": True}, "pattern ingester")


@pytest.mark.on("tempo")
@pytest.mark.control(id="OB-9.1", severity="high", title="Tempo makes metrics from traces and has a place for them")
def test_tempo_generator(answers: Answers, config: HostConfig, view: FleetView) -> None:
    seen = _yaml(answers.last(view.url(config[TEMPO].port, tempo_model.CONFIG_PAGE)))
    writes = seen["metrics_generator"]["storage"].get("remote_write") or []
    expect.at_least(len(writes), 1, "places that metrics from traces are written to")
    overrides = _yaml(answers.last(view.url(config[TEMPO].port, tempo_model.OVERRIDES_PAGE)))["overrides"]
    for tenant in view.telemetry.tenants:
        found = set(overrides.get(tenant, {}).get("metrics_generator", {}).get("processors") or ())
        expect.nothing(sorted({"service-graphs", "span-metrics"} - found), f"kinds of metrics not made for {tenant}")


@pytest.mark.on("mimir")
@pytest.mark.control(id="OB-10.1", severity="high", title="Mimir runs all its parts and its Alertmanager")
def test_mimir_target(answers: Answers, config: HostConfig, view: FleetView) -> None:
    seen = _yaml(answers.last(view.url(config[MIMIR].port, mimir_model.CONFIG_PAGE)))
    target = seen["target"]
    parts = set(target.split(",") if isinstance(target, str) else target)
    expect.equal(parts, {"all", "alertmanager"}, "parts")


@pytest.mark.on("mimir")
@pytest.mark.control(id="OB-10.2", severity="medium", title="Mimir judges its rules as often as it is set")
def test_mimir_ruler(answers: Answers, config: HostConfig, view: FleetView) -> None:
    settings = expect.found(config[MIMIR], "settings of Mimir", "none")
    seen = _yaml(answers.last(view.url(settings.port, mimir_model.CONFIG_PAGE)))
    telemetry.same_duration(seen["ruler"]["evaluation_interval"], settings.ruler_interval, "time between judgements")


# --- Alloy (OB-7)


@pytest.mark.on("alloy")
@pytest.mark.control(id="OB-7.1", severity="high", title="Every component of Alloy is healthy")
def test_alloy_components(answers: Answers, config: HostConfig, view: FleetView) -> None:
    components = _json(answers.last(view.url(config[ALLOY].ui_port, alloy_model.COMPONENTS_PAGE)))
    expect.at_least(len(components), 1, "components")
    sick = [found["localID"] for found in components if found["health"]["state"] != "healthy"]
    expect.nothing(sick, "components that are not healthy")


@pytest.mark.on("alloy")
@pytest.mark.control(id="OB-7.2", severity="high", title="Alloy has the components the pipeline needs, one per tenant")
def test_alloy_pipeline(answers: Answers, config: HostConfig, view: FleetView) -> None:
    components = _json(answers.last(view.url(config[ALLOY].ui_port, alloy_model.COMPONENTS_PAGE)))
    there = {found["localID"] for found in components}
    needed = {"otelcol.receiver.otlp.default", "otelcol.processor.memory_limiter.default"}
    for tenant in view.telemetry.tenants:
        label = tenant.replace("-", "_")
        needed |= {f"otelcol.processor.filter.{label}", f"otelcol.processor.batch.{label}"}
        # One for each kind of data that this tenant's backends take.
        exporters = [name for name in there if name.startswith(f"otelcol.exporter.otlphttp.{label}_")]
        expect.at_least(len(exporters), 1, f"exporters of {tenant}")
    expect.nothing(sorted(needed - there), "components that are missing")


@pytest.mark.on("alloy")
@pytest.mark.control(id="OB-7.3", severity="high", title="Alloy has not lost a single record")
def test_alloy_losses(answers: Answers, config: HostConfig, view: FleetView) -> None:
    found = list(samples(answers.last(view.url(config[ALLOY].ui_port, alloy_model.METRICS_PAGE))))
    expect.at_least(len(found), 1, "metrics of Alloy")
    expect.nothing(telemetry.losses(found), "records that were given up")


# --- Elasticsearch and Kibana (OB-2, OB-3)


@pytest.fixture
def elastic(config: HostConfig) -> dict[str, str]:
    """What logs the user `elastic` in."""
    return basic("elastic", config[ELASTICSEARCH].password_secret, config[TELEMETRY].environment)


@pytest.mark.on("elasticsearch")
@pytest.mark.control(id="OB-2.1", severity="high", title="Elasticsearch stores log fields in exactly the agreed types")
def test_log_template(asker: Asker, config: HostConfig, view: FleetView, elastic: dict[str, str]) -> None:
    answer = asker.get(f"{view.url(config[ELASTICSEARCH].port)}/_index_template/{_LOG_TEMPLATE}", elastic)
    template = _json(answer)["index_templates"][0]["index_template"]
    expect.equal(template["index_patterns"], [f"{_LOG_TEMPLATE}-*"], "indices it is for")
    fields = dict(_fields(template["template"]["mappings"]["properties"]))
    expect.entries(fields, _LOG_FIELDS, "types of fields")


def _fields(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every field with its type, by its dotted name, however the template nests them."""
    for name, content in properties.items():
        if "type" in content:
            yield prefix + name, content["type"]
        yield from _fields(content.get("properties", {}), f"{prefix}{name}.")


@pytest.mark.on("elasticsearch")
@pytest.mark.control(id="OB-2.2", severity="high", title="Elasticsearch has all the data it was given")
def test_elasticsearch_health(asker: Asker, config: HostConfig, view: FleetView, elastic: dict[str, str]) -> None:
    health = _json(asker.get(f"{view.url(config[ELASTICSEARCH].port)}/_cluster/health", elastic))
    expect.that(health["status"] in ("green", "yellow"), health["status"], "green or yellow", "state of the cluster")
    expect.equal(health["number_of_nodes"], len(view.members(ELASTICSEARCH)), "nodes of the cluster")


@pytest.mark.on("elasticsearch")
@pytest.mark.control(id="OB-2.3", severity="critical", title="Nobody reads logs in Elasticsearch without a password")
def test_elasticsearch_security(asker: Asker, config: HostConfig, view: FleetView) -> None:
    answer = asker.get(view.url(config[ELASTICSEARCH].port, "/_search"))
    expect.equal(answer.status, 401, "HTTP status without a password")


@pytest.mark.on("elasticsearch")
@pytest.mark.control(id="OB-2.4", severity="medium", title="New logs can be searched as soon as it is set")
def test_refresh_interval(asker: Asker, config: HostConfig, view: FleetView, elastic: dict[str, str]) -> None:
    settings = expect.found(config[ELASTICSEARCH], "settings of Elasticsearch", "none")
    answer = asker.get(f"{view.url(settings.port)}/_index_template/{_LOG_TEMPLATE}?flat_settings=true", elastic)
    found = _json(answer)["index_templates"][0]["index_template"]["template"]["settings"]
    telemetry.same_duration(found.get("index.refresh_interval"), settings.refresh_interval, "refresh interval")


@pytest.mark.on("kibana")
@pytest.mark.control(id="OB-3.1", severity="high", title="Kibana shows the application's logs by their time")
def test_data_view(asker: Asker, config: HostConfig, view: FleetView) -> None:
    backends = view.members(ELASTICSEARCH)
    if not backends:
        expect.not_applicable("no host of the inventory runs Elasticsearch")
    login = basic("elastic", backends[0].settings.password_secret, view.telemetry.environment)
    views = _json(asker.get(f"{view.url(config[KIBANA].port)}/api/data_views", login))["data_view"]
    titles = [found["title"] for found in views]
    expect.equal(titles.count(f"{_LOG_TEMPLATE}-*"), 1, f"data views {_LOG_TEMPLATE}-*")
    own = next(found for found in views if found["title"] == f"{_LOG_TEMPLATE}-*")
    detail = _json(asker.get(f"{view.url(config[KIBANA].port)}/api/data_views/data_view/{own['id']}", login))
    expect.equal(detail["data_view"].get("timeFieldName"), "@timestamp", "time field")


# --- Grafana (OB-14)


@pytest.fixture
def grafana(config: HostConfig) -> dict[str, str]:
    """What logs Grafana's administrator in."""
    return basic("admin", config[GRAFANA].admin_password_secret, config[TELEMETRY].environment)


@pytest.mark.on("grafana")
@pytest.mark.control(id="OB-14.1", severity="high", title="Grafana reaches every source of data it shows")
def test_datasources(asker: Asker, config: HostConfig, view: FleetView, grafana: dict[str, str]) -> None:
    url = view.url(config[GRAFANA].port)
    sources = _json(asker.get(f"{url}/api/datasources", grafana))
    expect.at_least(len(sources), 1, "data sources")
    editable = [source["name"] for source in sources if not source.get("readOnly")]
    expect.nothing(editable, "data sources that are not from the settings")
    # Jaeger's and Alertmanager's plugins have no health check of their own; they answer 404 to the question.
    sick = []
    for source in sources:
        answer = asker.get(f"{url}/api/datasources/uid/{source['uid']}/health", grafana)
        if answer.status not in (200, 404):
            sick.append(f"{source['name']}: {answer.status}")
    expect.nothing(sick, "data sources that do not answer")


@pytest.mark.on("grafana")
@pytest.mark.control(id="OB-14.2", severity="high", title="Grafana has its dashboards, and they know their sources")
def test_dashboards(asker: Asker, config: HostConfig, view: FleetView, grafana: dict[str, str]) -> None:
    url = view.url(config[GRAFANA].port)
    uids = {source["uid"] for source in _json(asker.get(f"{url}/api/datasources", grafana))}
    boards = _json(asker.get(f"{url}/api/search?type=dash-db", grafana))
    # RT host, system overview, telemetry pipeline, preflight and compliance.
    expect.at_least(len(boards), 4, "dashboards")
    unknown = []
    for board in boards:
        document = _json(asker.get(f"{url}/api/dashboards/uid/{board['uid']}", grafana))
        unknown += [f"{board['title']}: {uid}" for uid in sorted(_sources(document["dashboard"]) - uids)]
    expect.nothing(unknown, "sources that dashboards name and Grafana does not have")


def _sources(node: object) -> set[str]:
    """Return the data sources that a dashboard names; variables and Grafana's own are not meant."""
    found: set[str] = set()
    if isinstance(node, dict):
        source = node.get("datasource")
        if isinstance(source, dict) and isinstance(source.get("uid"), str):
            uid = source["uid"]
            if not uid.startswith(("$", "-- ")) and uid != "grafana":
                found.add(uid)
        for value in node.values():
            found |= _sources(value)
    elif isinstance(node, list):
        for value in node:
            found |= _sources(value)
    return found


# --- Garage (OB-12)


@pytest.mark.on("garage")
@pytest.mark.control(id="OB-12.1", severity="high", title="The object storage has all its nodes and data")
def test_garage_health(asker: Asker, config: HostConfig, view: FleetView) -> None:
    settings = expect.found(config[GARAGE], "settings of Garage", "none")
    token = {"Authorization": f"Bearer {known(settings.admin_token_secret, view.telemetry.environment).decode()}"}
    health = _json(asker.get(view.url(settings.admin_port, "/v2/GetClusterHealth"), token))
    expect.entries(health, {"status": "healthy", "connectedNodes": len(view.members(GARAGE))}, "cluster")
    expect.equal(health["partitionsAllOk"], health["partitions"], "partitions with all their copies")
