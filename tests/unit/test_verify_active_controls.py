"""Controls that ask programs themselves, on programs that are played: what is wrong is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from roles.alertmanager.model import ALERTMANAGER, AlertmanagerSettings
from roles.fleet import load_hosts
from roles.host import HostConfig
from roles.rt_app.model import RT_APP
from roles.shape import FleetView
from roles.stand_ins import stand_in_view
from rtinfra.facts.http import HttpAnswer
from rtinfra.paths import PROJECT
from rtinfra.verify import expect
from rtinfra.verify.asking import Asker
from rtinfra.verify.expect import Mismatch
from tests.compliance import test_alerting, test_tracing_cost
from tests.compliance.test_tracing_cost import work

INVENTORY = """hosts:
  robot: {groups: [rt_hosts, lab, agents], ssh: {address: 192.0.2.1}}
  backend: {groups: [gateways, jaeger, prometheus, alertmanager], ssh: {address: 192.0.2.2}}
  second: {groups: [prometheus, alertmanager], ssh: {address: 192.0.2.3}}
"""


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Played:
    """A host whose programs are played: what was posted, and what each page says."""

    pages: Callable[[str], str]
    status: int = 202
    posted: list[tuple[str, Any]] = field(default_factory=list)

    def get(self, url: str) -> HttpAnswer:
        return HttpAnswer("GET", url, 200, 3, self.pages(url))

    def post(self, url: str, document: Any) -> HttpAnswer:
        self.posted.append((url, document))
        return HttpAnswer("POST", url, self.status, 3, "")

    def until(
        self, look: Callable[[], HttpAnswer], holds: Callable[[HttpAnswer], bool], seconds: float
    ) -> HttpAnswer | None:
        answer = look()
        return answer if holds(answer) else None


@pytest.fixture
def fleet_site(tmp_path: Path) -> Callable[[str], tuple[HostConfig, FleetView]]:
    """Settings and surroundings of a host."""
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text(INVENTORY)
    fleet = load_hosts(PROJECT, inventory)
    return lambda name: (fleet.hosts[name].config, stand_in_view(fleet, fleet.hosts[name]))


# --- AL-1.2


def alert_log(
    fleet_site: Callable[[str], tuple[HostConfig, FleetView]], urls: list[str], reached: str | None
) -> tuple[Played, Callable[[], None]]:
    """The control on an Alertmanager that shows these URLs and whose alerts reach some of the logs."""
    config, site = fleet_site("backend")
    settings = cast("AlertmanagerSettings", config[ALERTMANAGER])
    played = Played(lambda url: json.dumps(played.posted) if reached is not None and reached in url else "", status=200)
    effective = {
        "receivers": [{"name": "alert-log", "webhook_configs": [{"url": url} for url in urls]}, {"name": "urgent"}],
        "route": {"receiver": "alert-log"},
    }
    asker = cast("Asker", played)
    return played, lambda: test_alerting.test_alert_log_gets_all(effective, asker, site, settings)


LOGS = ["http://192.0.2.2:9095/alerts", "http://192.0.2.3:9095/alerts"]


def test_alert_logs_that_are_shown_are_enough(fleet_site: Callable[[str], tuple[HostConfig, FleetView]]) -> None:
    played, control = alert_log(fleet_site, LOGS, None)
    control()
    assert played.posted == [], "nothing is raised where it can be seen without"


@pytest.mark.parametrize("urls", [[], LOGS[:1], ["http://192.0.2.9:9095/alerts", LOGS[0]]])
def test_an_alert_log_that_is_not_told_is_found(
    fleet_site: Callable[[str], tuple[HostConfig, FleetView]], urls: list[str]
) -> None:
    with pytest.raises(Mismatch, match=r"192\.0\.2\.3:9095"):
        alert_log(fleet_site, urls, None)[1]()


def test_a_masked_address_proves_nothing_until_an_alert_arrives(
    fleet_site: Callable[[str], tuple[HostConfig, FleetView]],
) -> None:
    masked = ["<secret>", "<secret>"]
    alert_log(fleet_site, masked, "/alerts")[1]()
    with pytest.raises(Mismatch, match=r"192\.0\.2\.2:9095.*192\.0\.2\.3:9095"):
        alert_log(fleet_site, masked, None)[1]()
    with pytest.raises(Mismatch, match=r"192\.0\.2\.3:9095"):
        alert_log(fleet_site, masked, "192.0.2.2")[1]()


# --- OB-4.3


@dataclass
class Process:
    """A real-time process: what a cycle takes, with what share of traces, and whether it does tasks and sends spans."""

    clock: Clock
    busy_us: float = 70.0
    traced_us: float = 0.0
    does_tasks: bool = True
    sends_spans: bool = True
    rate: float = 0.0
    busy: float = 0.0
    cycles: float = 0.0
    tasks: int = 0
    spans: int = 0
    seen: float = 0.0

    def page(self, url: str) -> str:
        cycles = (self.clock.now - self.seen) * 1000
        self.seen = self.clock.now
        self.cycles += cycles
        self.busy += cycles * (self.busy_us + self.traced_us * self.rate)
        return (
            f'mxrc_rt_cycle_time_us_sum{{process="rt_process"}} {self.busy}\n'
            f'mxrc_rt_cycle_time_us_count{{process="rt_process"}} {self.cycles}\n'
            f'mxrc_tasks_total{{process="rt_process",result="completed"}} {self.tasks}\n'
            f'mxrc_tasks_total{{process="rt_process",result="failed"}} 7\n'
            f'mxrc_tracing_spans_exported_total{{process="rt_process"}} {self.spans}\n'
        )


@pytest.fixture
def cost(
    fleet_site: Callable[[str], tuple[HostConfig, FleetView]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Played]:
    """Run the control on a process that is played, on a host that is no virtual machine."""
    clock = Clock()
    monkeypatch.setattr(test_tracing_cost, "time", clock)
    config, _ = fleet_site("robot")
    reference = config[RT_APP].reference.model_copy(update={"cycle_us": 1000})
    app = config[RT_APP].model_copy(update={"reference": reference})
    changed = config.model_copy(update={"rt_app": app})
    request = SimpleNamespace(config=SimpleNamespace(option=SimpleNamespace(latency_seconds=10)))

    def measured(virtualisation: str = "none", **how: Any) -> Played:
        process = Process(clock, **how)

        class Host(Played):
            def post(self, url: str, document: Any) -> HttpAnswer:
                process.tasks += process.does_tasks
                process.spans += 7 * process.does_tasks * process.sends_spans * (process.rate > 0)
                return super().post(url, document)

        def sampling(_host: object, _rt: object, _layout: object, rate: float) -> nullcontext[None]:
            process.rate = rate
            return nullcontext()

        monkeypatch.setattr(test_tracing_cost, "sampling", sampling)
        played = Host(process.page)
        computer = SimpleNamespace(is_virtual=virtualisation != "none", virtualisation=virtualisation)
        control: Callable[..., None] = test_tracing_cost.test_cost_of_tracing
        control(None, played, changed, None, computer, request)
        return played

    return measured


def test_the_cost_is_measured_under_tasks_at_the_stated_rate(cost: Callable[..., Played]) -> None:
    with expect.recording() as record:
        played = cost(traced_us=20)
    # Twice: with nothing traced and with everything.
    assert len(played.posted) == 2 * 50
    assert {document["mode"] for _, document in played.posted} == {"once"}
    assert any("+2.00% of a cycle" in seen.actual for seen in record.observations)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"traced_us": 80}, r"less than 5 %.*\+8\.00% of a cycle"),
        ({"does_tasks": False}, "tasks while everything is traced"),
        ({"sends_spans": False}, "spans delivered"),
    ],
)
def test_what_is_wrong_with_tracing_is_found(cost: Callable[..., Played], how: dict[str, Any], said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        cost(**how)


def test_on_a_virtual_machine_the_cost_is_told_and_not_judged(cost: Callable[..., Played]) -> None:
    with expect.recording() as record:
        cost(virtualisation="qemu", traced_us=80)
    assert record.measured is not None
    with pytest.raises(Mismatch, match="tasks while everything is traced"):
        cost(virtualisation="qemu", does_tasks=False)


def test_a_process_that_refuses_tasks_is_found(
    fleet_site: Callable[[str], tuple[HostConfig, FleetView]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(test_tracing_cost, "time", clock)
    played = Played(Process(clock).page, status=400)
    with pytest.raises(Mismatch, match="HTTP status of a task"):
        work(cast("Asker", played), fleet_site("robot")[0][RT_APP], 1)
