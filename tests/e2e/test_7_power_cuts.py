"""L-3: the first deploy loses its power at three moments, and the next run makes up for it.

The copies were made during `test_2_deploy.py`: one in the packages, one in the change of the boot loader, one in the
reboot. Each must end, after one more run, in the very state of the machine that was left alone, of which every control
held (`test_3_compliance.py`). All 20 moments: `make chaos`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from tests.chaos.cuts import Cuts, write_summary
from tests.chaos.instants import FEW, SEED, Instant, instants
from tests.chaos.outcome import assert_made_up_for, assert_worth_comparing

CUT = [moment for moment in instants() if moment.number in FEW]


@pytest.fixture(scope="module")
def summary() -> Iterator[list[dict[str, Any]]]:
    """What is written to reports/chaos.json at the end: one entry for each cut."""
    entries: list[dict[str, Any]] = []
    yield entries
    write_summary(SEED, entries)


def test_the_state_is_worth_comparing(cuts: Cuts) -> None:
    assert_worth_comparing(cuts.reference)


@pytest.mark.parametrize("moment", CUT, ids=str)
def test_the_next_run_makes_up_for_it(moment: Instant, cuts: Cuts, summary: list[dict[str, Any]]) -> None:
    entry = asdict(moment)
    summary.append(entry)
    assert_made_up_for(cuts.aftermath(moment), cuts.reference, entry)
