"""The offline journey begins: lock, fetch, carry in, and a bare host becomes the mirror with nothing but that."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from rtinfra.mirror.installer import checking_lines
from tests.offline.conftest import INVENTORY
from tests.offline.journey import ROOT, Journey, begun


@pytest.fixture(scope="module")
def journey(request: pytest.FixtureRequest) -> Iterator[Journey]:
    """Two bare machines; switched off in the end, for what follows to start them again."""
    with begun(request.config.getoption("--keep-machine")) as found:
        yield found


def test_a_bundle_of_everything_is_made(journey: Journey) -> None:
    made = journey.make_bundle(INVENTORY)
    again = journey.mirror("lock", "--lock", str(journey.lock), "--inventory", str(INVENTORY))
    assert again["result"] == "unchanged"
    print(f"full bundle: {made['carried']} contents, {made['bytes'] / 1e6:.0f} MB")


def test_a_bare_host_becomes_the_mirror_through_a_power_cut(journey: Journey) -> None:
    """Its only source is the bundle. The power goes while contents enter the pool; the same command completes it."""
    bundle = journey.bundles[-1]
    folder = journey.carry(bundle)
    for line in checking_lines(bundle["number"]):
        print(journey.server.run(f"cd {folder} && {line}", timeout=300).stdout)
    install = f"sh {folder}/install.sh --key {bundle['number']}"
    journey.cut_when(f"[ $(find {ROOT}/pool -type f 2>/dev/null | wc -l) -gt 40 ]", install, every=0.5)
    done = journey.server.run(install, timeout=900)
    print(done.stderr)
    published = journey.server.run("rtinfra mirror publish --json", timeout=300)
    assert json.loads(published.stdout)["changed"]
    assert journey.server.run("rtinfra mirror audit", timeout=300).stdout.strip() == "everything is as it should be"
