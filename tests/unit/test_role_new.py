"""What a role says of itself reaches everybody who treats all roles alike; nobody else has to hear of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from roles.catalogue import ROLES
from roles.composition import STACK, batch_names, compose
from roles.drift.model import EXPECTED
from roles.facets import Listener, Member, Scrape
from roles.packet_filter.access import PortOf, access
from roles.prometheus.model import PROMETHEUS
from roles.shape import FleetView, Role, RoleState, Tier
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, Settings
from rtinfra.operations.resources import File, Unit
from rtinfra.verify.questions import questions
from tests.unit.telemetry_site import at, here, shipped, view

UNIT = "an-exporter.service"
PATH = "/etc/default/an-exporter"


class ExporterSettings(Settings):
    """One port."""

    port: Port


EXPORTER = Section("an_exporter", ExporterSettings)


def state(settings: ExporterSettings, fleet: FleetView) -> RoleState:
    """Return one file, one unit, one package."""
    return RoleState(
        files=(File(path=PATH, content=f"ARGS={fleet.netloc(settings.port)}\n".encode(), restarts=(UNIT,)),),
        units=(Unit(UNIT),),
        packages=("an-exporter",),
        ready={UNIT: fleet.url(settings.port, "/metrics")},
    )


ROLE = Role(
    section=EXPORTER,
    state=state,
    tier=Tier.SENDS,
    listens=(Listener(port=lambda settings: settings.port, peers=(PROMETHEUS,)),),
    scrapes=(Scrape(job="things", port=lambda settings: settings.port, of_tenant=True),),
)


@pytest.fixture
def fleet() -> FleetView:
    """A host with the new role and with the check of itself."""
    found = view(base=here(), drift=here())
    member = Member("rt1", "192.0.2.1", ExporterSettings(port=9256), "prod")
    return replace(
        found, roles=(*ROLES[:-1], ROLE, ROLES[-1]), by_section={**found.by_section, EXPORTER.name: (member,)}
    )


def test_the_deploy_brings_it_with_the_other_programs(fleet: FleetView) -> None:
    composed = compose(fleet)
    (batch,) = [batch for batch in composed.batches if PATH in {path.path for path in batch.state.files}]
    assert batch.name == STACK and STACK in batch_names(fleet.roles)
    assert "an-exporter" in composed.packages
    assert UNIT in {unit.name for unit in composed.units}


def test_the_host_holds_itself_against_it(fleet: FleetView) -> None:
    (expected,) = [path for path in compose(fleet).paths if path.path == EXPECTED]
    assert isinstance(expected, File)
    document = json.loads(expected.content)
    assert PATH in {entry["path"] for entry in document["files"]}
    assert UNIT in {entry["name"] for entry in document["units"]}
    assert "an-exporter" in document["packages"]


def test_it_is_scraped(fleet: FleetView) -> None:
    (job,) = [job for job in fleet.jobs() if job.name == "things"]
    assert [(target.address, target.tenant) for target in job.targets] == [("192.0.2.1:9256", "prod")]
    assert job.group == "an_exporter"


def test_the_packet_filter_lets_in_who_scrapes_it(fleet: FleetView) -> None:
    prometheus = at("station", "192.0.2.20")
    found = access(
        shipped("packet_filter"), replace(fleet, by_section={**fleet.by_section, "prometheus": (prometheus,)})
    )
    assert PortOf("tcp", 9256) in found.ours
    assert [(one.port, str(one.network)) for one in found.openings] == [(PortOf("tcp", 9256), "192.0.2.20/32")]


def test_verification_looks_at_its_unit(fleet: FleetView) -> None:
    assert UNIT in questions(compose(fleet)).units


def test_a_setting_of_another_host_is_none_of_this_one(fleet: FleetView) -> None:
    elsewhere = replace(fleet, host="rt2")
    assert elsewhere.own(EXPORTER) is None
    with pytest.raises(TypeError, match="rt2 has no section an_exporter: it is not in the group an_exporter"):
        elsewhere.required(EXPORTER)


def test_two_roles_that_want_something_else_at_one_path_are_refused(fleet: FleetView) -> None:
    def other(settings: ExporterSettings, _view: FleetView) -> RoleState:
        return RoleState(files=(File(path=PATH, content=b"something else\n"),))

    section = Section("another", ExporterSettings)
    another = Role(section=section, state=other, tier=Tier.SENDS)
    member = Member("rt1", "192.0.2.1", ExporterSettings(port=1), "prod")
    both = replace(fleet, roles=(*fleet.roles, another), by_section={**fleet.by_section, "another": (member,)})
    with pytest.raises(ValueError, match=f"two roles of this host have something different in mind for {PATH}"):
        compose(both)


def test_a_program_of_the_stack_supplies_nobody() -> None:
    with pytest.raises(TypeError, match="it cannot supply packages"):
        replace(ROLE, supplies=True)
