"""Each tenant's records go where the tenant's belong; what names none or an unknown one, to those who look after it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.fleet import GATEWAYS, containers, in_room
from tests.native.room import Network, Program, eventually


@pytest.fixture
def gateway(network: Network, tmp_path: Path) -> Iterator[Program]:
    program = in_room(containers("gateways")["otel-gateway-1"], network, tmp_path)
    try:
        program.start()
        yield program
    finally:
        program.kill()


def record(text: str, tenant: str | None) -> dict[str, object]:
    """One log record of a tenant, as an agent sends it."""
    attributes = [] if tenant is None else [{"key": "tenant_id", "value": {"stringValue": tenant}}]
    entry = {"timeUnixNano": str(time.time_ns()), "body": {"stringValue": text}}
    return {"resource": {"attributes": attributes}, "scopeLogs": [{"logRecords": [entry]}]}


def test_each_record_reaches_its_tenant_alone(network: Network, gateway: Program) -> None:
    sent = {
        "of production": "prod",
        "of staging": "staging",
        "of those who look after it": "infra-monitoring",
        "of somebody unknown": "nobody",
        "of no one": None,
    }
    resources = [record(text, tenant) for text, tenant in sent.items()]
    assert network.post(f"http://{GATEWAYS[0]}:4328/v1/logs", {"resourceLogs": resources}) is not None
    folder = gateway.root / "data" / "logs"
    kept = {"prod": {"of production"}, "staging": {"of staging"}, "infra-monitoring": set(list(sent)[2:])}

    def found() -> bool:
        texts = {name: (folder / f"{name}.jsonl").read_text() for name in kept if (folder / f"{name}.jsonl").exists()}
        return {name: {text for text in sent if f'"{text}"' in content} for name, content in texts.items()} == kept

    eventually(f"{kept} in {folder}", 20, found)
    # Whoever says an unknown tenant can be asked about it.
    assert '"nobody"' in (folder / "infra-monitoring.jsonl").read_text()
