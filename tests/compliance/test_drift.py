"""Drift: the host itself watches whether it stays what the last deploy made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from roles.drift.model import DRIFT, TIMER
from roles.host import HostConfig
from rtinfra.limits import project_limits
from rtinfra.verify import expect
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.look.drift import Drift
from rtinfra.verify.look.units import Units

pytestmark = pytest.mark.every_host

# The first check comes two minutes after the deploy; on an emulated host it takes its time.
_FIRST_SECONDS = 600


@pytest.fixture
def timer(units: Units, config: HostConfig) -> Mapping[str, str]:
    """systemd's view of the timer; without the role these controls mean nothing."""
    if not config[DRIFT].enabled:
        expect.not_applicable("the settings switch the check off (drift.enabled)")
    return units.of(TIMER)


@pytest.fixture
def last(computer: Computer, units: Units, drift: Drift, timer: Mapping[str, str]) -> Mapping[str, Any]:
    """The last result."""
    since = units.seconds_active(TIMER, computer.uptime)
    # A deploy that changes or puts back something starts the timer anew; an older result speaks of what was before.
    age = computer.state.clock - drift.finished
    if age > since and since < _FIRST_SECONDS:
        expect.not_applicable("the host looks two minutes after it was deployed or started, and has not done so yet")
    return expect.found(drift.result or None, "result of the last check", "none")


@pytest.mark.control(id="L-5.1", severity="high", title="The host checks itself for drift every day")
def test_timer(timer: Mapping[str, str]) -> None:
    expect.entries(timer, {"ActiveState": "active", "UnitFileState": "enabled"}, TIMER)


@pytest.mark.control(id="L-5.2", severity="high", title="The host's last check of itself is recent")
def test_fresh(computer: Computer, last: Mapping[str, Any]) -> None:
    hours = (computer.state.clock - int(last["finished"])) / 3600
    expect.below(hours, project_limits().check_age.seconds / 3600, "age of the last check", "hours")


@pytest.mark.control(id="L-5.3", severity="high", title="The host's last check of itself found no drift")
def test_no_drift(last: Mapping[str, Any]) -> None:
    found = (f"{it['kind']} {it['name']} is {it['actual']}, not {it['expected']}" for it in last["drift"])
    expect.nothing(found, "what is not as the last deploy made it")


@pytest.mark.control(id="L-5.4", severity="medium", title="The host was last deployed with exactly these settings")
def test_settings_are_deployed(config: HostConfig, last: Mapping[str, Any]) -> None:
    expect.equal(last.get("settings_sha256"), config.sha256, "hash of the settings")
