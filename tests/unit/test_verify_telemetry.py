"""What controls about telemetry read out of metrics, traces and logs."""

from __future__ import annotations

import json
import random
import string
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.jaeger.role import spans
from rtinfra.config.types import Duration
from rtinfra.facts.http import HttpAnswer, Request, command, loopback
from rtinfra.facts.http import parse as parse_http
from rtinfra.stack_programs import Program
from rtinfra.verify import expect, telemetry
from rtinfra.verify.look.answers import samples
from rtinfra.verify.look.units import Units
from rtinfra.verify.snapshot import parse
from tests.record_looks import rt_host
from tests.unit.telemetry_site import at, view
from tests.unit.telemetry_site import telemetry as telemetry_of

SAMPLE = rt_host()
# As an OpenTelemetry Collector shows itself.
METRICS = r"""# HELP otelcol_exporter_queue_size Current size of the retry queue (in batches)
# TYPE otelcol_exporter_queue_size gauge
otelcol_exporter_queue_size{data_type="traces",exporter="otlp_grpc/traces-prod",service_name="otelcol"} 950
otelcol_exporter_queue_size{data_type="logs",exporter="otlp_grpc/logs-prod",service_name="otelcol"} 0
otelcol_exporter_queue_capacity{data_type="traces",exporter="otlp_grpc/traces-prod",service_name="otelcol"} 1000
otelcol_exporter_queue_capacity{data_type="logs",exporter="otlp_grpc/logs-prod",service_name="otelcol"} 1000
otelcol_exporter_enqueue_failed_spans_total{exporter="otlp_grpc/traces-prod"} 3
otelcol_exporter_send_failed_spans_total{exporter="otlp_grpc/traces-prod"} 0
odd{text="a \"quoted\" \\ one, with {braces}"} +Inf 1731000000000
not a sample
"""


def answer(body: str) -> HttpAnswer:
    return HttpAnswer("GET", "http://192.0.2.1:8888/metrics", 200, 1, body)


def test_samples_with_labels_and_times() -> None:
    found = list(samples(answer(METRICS)))
    assert len(found) == 7
    assert found[-1].labels == {"text": 'a "quoted" \\ one, with {braces}'}
    assert found[-1].value == float("inf")


def test_queues_by_exporter_and_signal() -> None:
    full, empty = sorted(telemetry.queues(samples(answer(METRICS))), key=lambda queue: -queue.share)
    assert str(full) == "otlp_grpc/traces-prod/traces (95% full)"
    assert (empty.size, empty.capacity) == (0, 1000)
    assert telemetry.queues([]) == []


def test_only_real_losses_count() -> None:
    found = list(samples(answer(METRICS)))
    assert telemetry.losses(found) == ["otlp_grpc/traces-prod: otelcol_exporter_enqueue_failed_spans_total 3"]


@pytest.mark.parametrize(
    ("printed", "setting", "holds"),
    [("168h0m0s", "7d", True), ("1w", "7d", True), ("604800s", "7d", True), ("2w", "7d", False), (None, "7d", False)],
)
def test_time_spans_as_backends_print_them(printed: str | None, setting: str, holds: bool) -> None:
    if holds:
        telemetry.same_duration(printed, Duration.parse(setting), "retention")
    else:
        with pytest.raises(expect.Mismatch, match=f"retention: expected {setting}"):
            telemetry.same_duration(printed, Duration.parse(setting), "retention")


def test_delay_of_each_record() -> None:
    written = [(10.0, 2), (11.0, 4)]
    found = [(10.1, 0), (10.5, 2), (11.2, 3), (12.0, 4)]
    assert telemetry.delays(written, found) == pytest.approx((0.5, 0.5, 0.2, 1.0))


def test_records_that_never_arrived_have_no_delay() -> None:
    assert telemetry.delays([(1.0, 3)], [(1.5, 1)]) == (0.5,)


@given(st.lists(st.integers(1, 50), max_size=20))
def test_every_record_that_was_seen_has_a_delay(batches: list[int]) -> None:
    looks = [(float(index), sum(batches[: index + 1])) for index in range(len(batches))]
    assert telemetry.delays(looks, looks) == (0.0,) * sum(batches)


def span(identifier: str, name: str, parent: str | None) -> dict[str, object]:
    references = [{"refType": "CHILD_OF", "traceID": "t", "spanID": parent}] if parent else []
    return {"spanID": identifier, "operationName": name, "references": references, "processID": "p1"}


def document(*spans: dict[str, object]) -> dict[str, object]:
    tags = [{"key": "tenant_id", "type": "string", "value": "prod"}, {"key": "host.name", "value": "robot"}]
    return {"data": [{"traceID": "t", "spans": list(spans), "processes": {"p1": {"tags": tags}}}]}


WHOLE = (
    span("1", "task.execute", None),
    span("2", "sequence.run", "1"),
    span("3", "action.execute", "2"),
    span("4", "eventbus.publish", "3"),
)


def test_context_from_the_task_to_the_event_bus() -> None:
    shuffled = random.Random(7).sample(WHOLE, len(WHOLE))
    assert telemetry.chain(spans(document(*shuffled))) == telemetry.CHAIN


def test_a_broken_chain_ends_where_it_breaks() -> None:
    torn = (*WHOLE[:2], span("3", "action.execute", "9"), WHOLE[3])
    assert telemetry.chain(spans(document(*torn))) == telemetry.CHAIN[:2]
    assert telemetry.chain(()) == ()


def test_tenant_of_a_trace() -> None:
    assert telemetry.Trace(spans(document(*WHOLE))).tenants == {"prod"}
    assert telemetry.Trace(spans({"data": None})).tenants == set()


@pytest.mark.parametrize(
    "record",
    [
        '{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"%s","spanId":"00"}]}]}]}',
        '[{"stream": {"trace_id": "%s"}, "values": []}]',
        '{"trace": {"id": "%s"}, "message": "x"}',
        '{"trace.id": "%s"}',
    ],
)
def test_trace_id_in_a_log_record_of_any_backend(record: str) -> None:
    identifier = "0123456789abcdef" * 2
    assert telemetry.trace_ids_in(record % identifier) == {identifier}
    assert telemetry.trace_ids_in(f'{{"message": "trace {identifier}"}}') == set()


def test_the_records_that_are_sent_belong_together() -> None:
    traces, logs = telemetry.otlp("ab" * 16, "cd" * 8, 1)
    sent = traces["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    record = logs["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
    assert (sent["traceId"], sent["spanId"]) == (record["traceId"], record["spanId"])
    assert record["severityText"] == "ERROR"
    json.dumps([traces, logs])


def restarted(restarts: str, since: str) -> Units:
    unit = {"NRestarts": restarts, "ActiveEnterTimestampMonotonic": since}
    return replace(parse(SAMPLE).units, all={"jaeger.service": unit})


def test_restarts_of_long_ago_do_not_count() -> None:
    program = Program("b", "jaeger", "jaeger", "jaeger.service")
    assert list(telemetry.restarting(restarted("3", "990000000"), 1000.0, [program])) == [
        "jaeger (3 restarts, the last 10 s ago)"
    ]
    assert list(telemetry.restarting(restarted("3", "100000000"), 1000.0, [program])) == []
    assert list(telemetry.restarting(restarted("0", "990000000"), 1000.0, [program])) == []


# --- HTTP as seen from a host


def test_requests_are_digits_and_no_shell_ever_sees_them() -> None:
    request = Request("http://192.0.2.1:9200/_search?q='$(x)'", "POST", b"{'\n}", {"Authorization": "Basic secret"})
    script = command([request])
    assert "secret" not in script
    assert "secret" not in repr(request)
    assert b"Basic secret".hex() in script
    assert request.line.split()[:4] == ["POST", request.url, "192.0.2.1", "9200"]


def test_ipv6_addresses_and_missing_paths() -> None:
    assert Request("http://[2001:db8::1]:80").line.split()[2:4] == ["2001:db8::1", "80"]
    assert b"GET / HTTP/1.0\r\n" in bytes.fromhex(Request("http://192.0.2.1:80").line.split()[-1])


@given(st.text(alphabet=string.printable.replace("\r", ""), max_size=200))
def test_bodies_come_through(body: str) -> None:
    count = 1 + body.count("\n")
    text = f"@http GET {loopback(80, '/a')} 200 3 {count}\n{body}\n@http GET {loopback(80, '/b')} 0 7 1\n\n"
    first, second = parse_http(text.split("\n"))
    assert first.body == body.strip()
    assert (second.status, second.body, second.json) == (0, "", None)


@given(st.text(alphabet="a\n", max_size=6), st.text(alphabet="b\n", max_size=6))
def test_a_body_is_no_answer_of_somebody_else(before: str, after: str) -> None:
    """A page with a line of the helper's own answered for every other service."""
    forged = f"@http GET {loopback(80, '/b')} 200 1 1"
    body = f"{before}\n{forged}\n{after}"
    text = f"@http GET {loopback(80, '/a')} 200 3 {1 + body.count(chr(10))}\n{body}\n"
    (only,) = parse_http(text.split("\n"))
    assert forged in only.body


# --- what the snapshot has of containers


def test_containers_and_their_images() -> None:
    digest = "sha256:" + "ab" * 32
    sections = f"""@@containers
jaeger {"12" * 32} running
grafana {"34" * 32} exited
@@images
sha256:{"12" * 32} localhost/jaeger@{digest}
@@directories
/var/lib/rtinfra-data/jaeger 750 rtinfra-jaeger rtinfra-jaeger
@@data_files
4096 /var/lib/rtinfra-data/jaeger/a file
@@filebeat
Config OK
@@http_telemetry
@http GET http://192.0.2.2:13133/status 200 4 1
{{"status":"StatusOK"}}
"""
    seen = parse(f"{sections}{SAMPLE}")
    assert seen.containers.all["jaeger"].images == {f"localhost/jaeger@{digest}"}
    assert seen.containers.all["grafana"].state == "exited"
    assert seen.containers.all["grafana"].images == frozenset()
    assert seen.containers.directories == {"/var/lib/rtinfra-data/jaeger": "750 rtinfra-jaeger rtinfra-jaeger"}
    assert seen.containers.data_files == {"/var/lib/rtinfra-data/jaeger/a file": 4096}
    assert seen.filebeat.messages[-1:] == ("Config OK",)
    assert seen.answers.last("http://192.0.2.2:13133/status").json == {"status": "StatusOK"}
    with pytest.raises(KeyError):
        seen.answers.last("http://192.0.2.2:13133/never-asked")


class _Asked:
    """Notes on which host something is asked; every answer has a record."""

    def __init__(self) -> None:
        self.hosts: list[str] = []

    def on(self, host: str) -> Any:
        self.hosts.append(host)
        return self

    def until(self, *_: object) -> None:
        return None

    def ask(self, _: object) -> Any:
        return SimpleNamespace(json={"data": {"result": [{"values": 1}]}})


def test_a_store_is_asked_on_its_own_host() -> None:
    """Its packet filter lets no agent ask."""
    fleet = view(jaeger=at("traces", "192.0.2.8"), loki=at("logs", "192.0.2.9"), shared=telemetry_of(logs="loki"))
    asked = _Asked()
    assert telemetry.find_trace(asked.on, fleet, "0" * 32, 1) is None
    assert telemetry.find_log(asked.on, fleet, "0" * 32, {}) is not None
    assert asked.hosts == ["traces", "logs"]
