"""A deploy from a bare machine to a real-time host loses its power, and the next run makes up for it.

The moments are in instants.py. Of one deploy that is left alone, the disk is copied at each of them as a power cut
would leave it (`Machine.as_cut_off`); a machine that starts from the copy has lost its power then. So all cuts belong
to the same deploy, and what they end in can be held against what that ended in. `make test` takes a few of these cuts
of the first deploy of its end-to-end scenarios (tests/e2e/test_7_power_cuts.py), with the same assertions.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rtinfra import verify
from rtinfra.lab import Machine
from tests.chaos.cuts import Cuts, Reference
from tests.chaos.instants import Instant
from tests.chaos.outcome import assert_made_up_for, assert_worth_comparing


def test_the_state_is_worth_comparing(reference: Reference) -> None:
    assert_worth_comparing(reference)


def test_every_control_holds_of_it(reference: Reference, machine: Machine, tmp_path: Path) -> None:
    """And so of every machine below that ends in the same state, value by value."""
    report = verify.run(machine.root / "inventory.yaml", output=tmp_path, latency_seconds=1)
    assert not report.problems, report.problems
    assert not report.failed, "\n".join(f"{result.control} {result.title}" for result in report.failed)


def test_the_next_run_makes_up_for_it(
    moment: Instant, cuts: Cuts, reference: Reference, summary: list[dict[str, Any]]
) -> None:
    entry = asdict(moment)
    summary.append(entry)
    assert_made_up_for(cuts.aftermath(moment), reference, entry)
