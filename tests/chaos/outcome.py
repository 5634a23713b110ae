"""What has to be true of a machine that was cut off, once a run was made up for it."""

from __future__ import annotations

from typing import Any

from tests.chaos.cuts import Aftermath, Reference
from tests.chaos.state import differences


def assert_worth_comparing(reference: Reference) -> None:
    """The looks at the machine saw something. Otherwise everything else would hold of two empty lists."""
    for section, names in {
        "packages": ["linux-image-rt-amd64", "chrony"],
        "files": ["/etc/default/grub.d/60-rtinfra.cfg", "/usr/bin/python3", "/boot/grub"],
        "units": ["mxrc-rt.service", "chrony.service"],
        "boot": ["kernel", "command line"],
        "live": ["sysctl vm.swappiness", "/sys/fs/cgroup/cpuset.cpus.isolated"],
    }.items():
        for name in names:
            assert reference.state.sections[section].get(name), f"{section}: {name}"
    assert reference.state.sections["initrd"]
    assert not reference.state.sections["unfinished"]


def assert_made_up_for(after: Aftermath, reference: Reference, entry: dict[str, Any]) -> None:
    """A further run had nothing to do, and the end state is that of the machine that was left alone.

    `entry` gets what is kept of it, also when it is not so.
    """
    found = differences(reference.state, after.state)
    entry |= after.summary | {"compared": reference.state.size, "differences": list(map(str, found))}
    assert after.again.ok, after.again.log
    assert after.again.changed == 0, after.again.changed_operations
    assert not found, "\n".join(map(str, found))
