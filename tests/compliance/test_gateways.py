"""Gateways: collectors that take everything in, keep it on disk, and pass it on."""

from __future__ import annotations

import pytest

from roles.gateways.model import GATEWAYS, METRICS_PAGE, GatewaysSettings, addresses_of
from roles.host import HostConfig
from roles.shape import FleetView
from rtinfra.limits import project_limits
from rtinfra.stack_programs import Program
from rtinfra.verify import expect, telemetry
from rtinfra.verify.look.answers import Answers, Sample, samples
from rtinfra.verify.look.containers import Containers

pytestmark = pytest.mark.on("gateways")

_LIMITS = project_limits()


@pytest.fixture
def settings(config: HostConfig) -> GatewaysSettings:
    """Settings of the gateways."""
    return expect.found(config[GATEWAYS], "settings of the gateways", "none")


@pytest.fixture
def measured(answers: Answers, view: FleetView, settings: GatewaysSettings) -> dict[str, list[Sample]]:
    """What each gateway of the host says of itself, by address."""
    found = {
        address: list(samples(answers.last(f"http://{address}:{settings.metrics_port}{METRICS_PAGE}")))
        for address in addresses_of(settings, view.address)
    }
    expect.nothing((address for address, own in found.items() if not own), "gateways without metrics")
    return found


@pytest.mark.control(id="OB-6.1", severity="high", title="There are at least two gateways, so that one may fail")
def test_two_gateways(view: FleetView) -> None:
    number = sum(len(member.settings.addresses) or 1 for member in view.members(GATEWAYS))
    expect.at_least(number, _LIMITS.gateways, "gateways in the inventory")


@pytest.mark.control(id="OB-6.2", severity="critical", title="Every gateway of the host runs and says it is healthy")
def test_healthy(answers: Answers, programs: tuple[Program, ...], view: FleetView, settings: GatewaysSettings) -> None:
    own = [program for program in programs if program.role == "gateways" and program.ready]
    expect.at_least(len(own), len(addresses_of(settings, view.address)), "gateways of the host")
    sick = [
        f"{program.name}: {answers.last(str(program.ready)).status}"
        for program in own
        if answers.last(str(program.ready)).status not in program.ready_status
    ]
    expect.nothing(sick, "gateways that are not healthy, with their HTTP status")


@pytest.mark.control(
    id="OB-6.3", severity="critical", title="Gateways keep what they cannot pass on, as much as is set"
)
def test_queue_capacity(measured: dict[str, list[Sample]], settings: GatewaysSettings) -> None:
    # In bytes: a queue that counts requests would show a few thousand.
    required = settings.queue_mb * 1_000_000
    for address, own in measured.items():
        queues = telemetry.queues(own)
        expect.at_least(len(queues), 1, f"queues of the gateway at {address}")
        small = [f"{queue.exporter}: {queue.capacity:.0f}" for queue in queues if queue.capacity < required]
        expect.nothing(small, f"queues at {address} for less than {required} bytes")


@pytest.mark.control(
    id="OB-6.4", severity="critical", title="The queues of gateways are on disk and outlive a power cut"
)
def test_queue_on_disk(containers: Containers, programs: tuple[Program, ...]) -> None:
    own = [program for program in programs if program.role == "gateways"]
    without = [
        program.name
        for program in own
        if not any(path.startswith(f"{place}/") for path in containers.data_files for place in program.directories)
    ]
    expect.nothing(without, "gateways without a file in their data directories")


@pytest.mark.control(id="OB-6.5", severity="critical", title="Gateways have not lost a single record")
def test_nothing_lost(measured: dict[str, list[Sample]]) -> None:
    lost = [f"{address} {loss}" for address, own in measured.items() for loss in telemetry.losses(own)]
    expect.nothing(lost, "records that were refused by a queue or given up")


@pytest.mark.control(id="OB-6.6", severity="high", title="Nothing piles up in the queues of the gateways")
def test_queues_are_not_full(measured: dict[str, list[Sample]]) -> None:
    full = [
        f"{address} {queue}"
        for address, own in measured.items()
        for queue in telemetry.queues(own)
        if queue.share > _LIMITS.queue_fill_ratio
    ]
    expect.nothing(full, "queues that are nearly full")


@pytest.mark.control(id="OB-6.7", severity="medium", title="Gateways turn nothing away")
def test_nothing_refused(measured: dict[str, list[Sample]]) -> None:
    refused = [
        f"{address} {sample.name} {sample.value:.0f}"
        for address, own in measured.items()
        for sample in own
        if sample.name.startswith("otelcol_receiver_refused_") and sample.value > 0
    ]
    expect.nothing(refused, "records refused on arrival")
