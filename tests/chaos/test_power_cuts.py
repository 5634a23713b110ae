"""A deploy from a bare machine to a real-time host loses its power, and the next run makes up for it.

The moments are in instants.py. Of one deploy that is left alone, the disk is copied at each of them as a power cut
would leave it (`Machine.as_cut_off`); a machine that starts from the copy has lost its power then. So all cuts belong
to the same deploy, and what they end in can be held against what that ended in.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tests.chaos.conftest import Reference, Story
from tests.chaos.instants import Instant
from tests.chaos.state import differences


def test_the_state_is_worth_comparing(reference: Reference) -> None:
    """Otherwise everything below would hold of two empty lists."""
    for section, names in {
        "packages": ["linux-image-rt-amd64", "chrony"],
        "files": ["/etc/default/grub.d/60-rtinfra.cfg", "/usr/bin/python3", "/boot/grub"],
        "units": ["mxrc-rt.service", "chrony.service"],
        "boot": ["kernel", "command line"],
        "live": ["sysctl vm.swappiness", "/sys/devices/system/cpu/isolated"],
    }.items():
        for name in names:
            assert reference.state.sections[section].get(name), f"{section}: {name}"
    assert reference.state.sections["initrd"]
    assert not reference.state.sections["unfinished"]


def test_the_next_run_makes_up_for_it(
    moment: Instant, story: Story, reference: Reference, summary: list[dict[str, Any]]
) -> None:
    entry = asdict(moment)
    summary.append(entry)
    after = story.aftermath(moment)
    found = differences(reference.state, after.state)
    entry |= after.summary | {"compared": reference.state.size, "differences": list(map(str, found))}
    assert after.again.ok, after.again.log
    assert after.again.changed == 0, after.again.changed_operations
    assert not after.report.problems, after.report.problems
    assert not after.report.failed, "\n".join(f"{result.control} {result.title}" for result in after.report.failed)
    assert not found, "\n".join(map(str, found))
