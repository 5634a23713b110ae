"""`rtinfra prove`: what counts as proven, and the row for the table of results."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from rich.console import Console

from rtinfra import prove
from rtinfra.runner import DeployResult
from rtinfra.steps import Step

PROMOTED = "id=a\nstatus=promoted\nrelease=6.12-rt\nreason=proven\nrunning=6.12-rt\n"


@dataclass
class Host:
    """As much of a machine as is asked for: what it is, and what became of its trial."""

    trial: str = PROMOTED
    name: str = "prove"
    root: Path = Path("/lab")
    was_reset: bool = field(default=False, init=False)

    def reset(self) -> None:
        self.was_reset = True

    def run(self, command: str, **options: object) -> CompletedProcess[str]:
        said = self.trial if "running=" in command else "Debian GNU/Linux 13\n6.12\nUEFI\next4\n"
        return CompletedProcess(command, 0, said, "")


@dataclass(frozen=True)
class Verdict:
    ok: bool = True
    summary: str = "153 controls: 150 passed, 0 failed"


def result(changed: int, failed: int = 0) -> DeployResult:
    return DeployResult(failed, changed, 20, failed, (), 60.0, "")


def proof_of(
    host: Host, monkeypatch: pytest.MonkeyPatch, *deploys: DeployResult, verdict: Verdict | None = None
) -> prove.Proof:
    """Prove a stand-in."""
    left = list(deploys)

    def deploy(inventory: str, say: object) -> DeployResult:
        assert inventory == "/lab" and host.was_reset
        return left.pop(0)

    monkeypatch.setattr(prove, "deploy", deploy)
    monkeypatch.setattr(prove.verify, "run", lambda *words, **named: verdict or Verdict())
    return prove.of(host, Console(quiet=True))  # type: ignore[arg-type]


def test_a_host_that_is_proven_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    proof = proof_of(Host(), monkeypatch, result(12), result(0))
    assert proof.ok
    assert proof.row(date(2026, 11, 29)) == (
        "| `rtinfra prove` of 2026-11-29: Debian GNU/Linux 13, 6.12, UEFI, ext4 | deploy: 12 changed; trial boot:"
        " promoted, 6.12-rt; deploy again: 0 changed; all controls: 153 controls: 150 passed, 0 failed | 2 min |\n"
    )


@pytest.mark.parametrize(
    ("trial", "deploys", "verdict", "steps"),
    [
        (PROMOTED, [result(3, failed=1)], Verdict(), 1),
        ("running=6.12\n", [result(3)], Verdict(), 2),
        (PROMOTED.replace("promoted", "failed"), [result(3)], Verdict(), 2),
        (PROMOTED.replace("running=6.12-rt", "running=6.12"), [result(3)], Verdict(), 2),
        (PROMOTED, [result(3), result(1)], Verdict(), 3),
        (PROMOTED, [result(3), result(0, failed=1)], Verdict(), 3),
        (PROMOTED, [result(3), result(0)], Verdict(ok=False, summary="1 failed"), 4),
    ],
    ids=["deploy", "no trial", "trial failed", "another kernel runs", "changes again", "fails again", "controls"],
)
def test_the_first_step_that_fails_ends_it(
    trial: str, deploys: list[DeployResult], verdict: Verdict, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = proof_of(Host(trial=trial), monkeypatch, *deploys, verdict=verdict)
    assert not proof.ok and len(proof.steps) == steps and not proof.steps[-1].ok
    assert "| **not proven.** deploy: " in proof.row(date(2026, 11, 29))


def test_nothing_done_is_not_proven() -> None:
    assert not prove.Proof("Debian", ()).ok
    assert prove.Proof("Debian", (Step("Deploy", "1 changed", True, 1.0),)).ok
