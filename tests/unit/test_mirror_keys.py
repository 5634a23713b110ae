"""`rtinfra mirror keys` as it is typed: where bundles are made, and on the mirror."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rtinfra.local.progress import Reporter
from rtinfra.mirror import bundle_keys, gpg, trust
from rtinfra.mirror import lock as locking
from rtinfra.mirror.bundle import make_bundle
from rtinfra.mirror.cli import app
from rtinfra.mirror.installer import checking_lines
from rtinfra.mirror.store import Mirror
from rtinfra.mirror.trust import TrustedKey
from tests.unit.bundle_site import PART_SIZE, Journey

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


def keys(mirror: Mirror, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["keys", *words, "--directory", str(mirror.root)])
    assert done.exit_code == code, done.output
    return done.output


def listed(mirror: Mirror) -> list[tuple[str, str, str]]:
    # Warnings are no part of what programs read.
    done = CliRunner().invoke(app, ["keys", "list", "--json", "--directory", str(mirror.root)])
    return [(one["kind"], one["state"], one["fingerprint"]) for one in json.loads(done.stdout)["keys"]]


@pytest.fixture
def owner(journey: Journey, tmp_path: Path) -> Mirror:
    """The computer where bundles are made, with a key that was made today."""
    mirror = Mirror(tmp_path / "owner")
    shutil.copytree(journey.mirror.pool.directory, mirror.pool.directory)
    make_bundle(mirror, journey.lock, part_size=PART_SIZE)
    return mirror


@pytest.fixture
def published(tmp_path: Path) -> Mirror:
    """A mirror that signs a repository."""
    mirror = Mirror(tmp_path / "mirror")
    gpg.signing_key(mirror.keys, Reporter())
    return mirror


def test_every_command_has_examples_and_json() -> None:
    root: Any = typer.main.get_command(app)
    group = root.commands["keys"]
    assert set(group.commands) == {"list", "rotate", "revoke"}
    for command in group.commands.values():
        assert "Examples:" in command.help
        assert "--json" in [opt for param in command.params for opt in param.opts]


def test_who_makes_a_bundle_is_told_what_the_other_side_types_first(
    owner: Mirror, journey: Journey, tmp_path: Path
) -> None:
    locking.write(journey.lock, tmp_path / "lock.yaml")
    words = ["bundle", "--lock", str(tmp_path / "lock.yaml"), "--directory", str(owner.root)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (entry,) = bundle_keys.own_keys(owner)
    lines = [*checking_lines(entry.key.number), f"sh install.sh --key {entry.key.number}"]
    assert done.stdout.splitlines()[-3:] == [f"    {line}" for line in lines]
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["number"] == entry.key.number


def test_nothing_is_there_and_looking_makes_nothing(tmp_path: Path) -> None:
    assert keys(Mirror(tmp_path / "none"), "list") == "there is no key yet\n"
    assert not (tmp_path / "none").exists()


def test_a_key_of_bundles_is_listed_changed_and_given_up(owner: Mirror, journey: Journey) -> None:
    (old,) = bundle_keys.own_keys(owner)
    assert listed(owner) == [("bundle", "signs", old.key.fingerprint)]
    assert old.key.number in keys(owner, "list")
    said = keys(owner, "rotate", "bundle", "--overlap-days", "30")
    _, new = bundle_keys.own_keys(owner)
    assert f"the key {new.key.fingerprint} signs from {NOW + 15 * DAY:%Y-%m-%d} on" in said
    assert new.key.number in said and "nobody has to be told anything" in said
    assert [state for _, state, _ in listed(owner)] == ["signs", "signs later"]
    assert "takes over already" in keys(owner, "rotate", "bundle", code=1)
    # By its number, too.
    said = keys(owner, "revoke", old.key.number)
    assert f"the key {old.key.fingerprint} is refused from now on" in said
    assert f"the key {new.key.fingerprint} signs from now on" in said and "tell the closed side this number" in said
    assert listed(owner) == [
        ("bundle", "signs", new.key.fingerprint),
        ("bundle", "refused", old.key.fingerprint),
    ]
    made = make_bundle(owner, journey.next_lock, part_size=PART_SIZE)
    assert made.fingerprint == new.key.fingerprint
    assert old.key.fingerprint in (made.folder / "refused_keys").read_text()


def test_the_key_of_the_repository_is_changed_and_given_up(published: Mirror) -> None:
    ((_, _, old),) = listed(published)
    done = json.loads(keys(published, "rotate", "repository", "--json"))
    assert listed(published) == [("repository", "signs", done["fingerprint"]), ("repository", "signs", old)]
    said = keys(published, "revoke", old.lower())
    assert f"the key {old} is refused from now on\nNext: rtinfra mirror publish --again" in said
    assert listed(published) == [("repository", "signs", done["fingerprint"]), ("repository", "refused", old)]
    assert trust.refused_keys(published)[0].line.startswith(f"repository {old} 20")


def test_the_mirror_refuses_a_key_of_bundles_without_waiting_for_one(owner: Mirror, published: Mirror) -> None:
    (entry,) = bundle_keys.own_keys(owner)
    trust.pin(published, (entry,))
    assert ("bundle", "trusted", entry.key.fingerprint) in listed(published)
    said = keys(published, "revoke", entry.key.fingerprint)
    assert "have a bundle made with another key" in said
    assert listed(published)[1:] == [("bundle", "refused", entry.key.fingerprint)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rotate", "bundle"), "no bundle has been made in"),
        (("rotate", "repository"), "nothing has been published from"),
        (("revoke", "nonsense"), "nonsense is no fingerprint"),
        (("revoke", "SHA256:short"), "SHA256:short is no fingerprint"),
        (("revoke", "0" * 64), "is no fingerprint, and no number of a key that is known here"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    assert said in keys(Mirror(tmp_path / "none"), *words, code=1)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("side", [bundle_keys._record, trust.pin])
def test_a_key_that_ends_soon_is_warned_about_until_another_one_is_there(
    owner: Mirror, side: Callable[[Mirror, tuple[TrustedKey, ...]], None]
) -> None:
    (entry,) = bundle_keys.own_keys(owner)
    ends = TrustedKey(entry.key, until=NOW + 20 * DAY)
    later = TrustedKey(bundle_keys.rotate(owner, 30 * DAY, NOW, Reporter()).key, NOW, NOW + 700 * DAY)
    side(owner, (ends,))
    assert f"Warning: the key {entry.key.fingerprint} ends at {ends.until:%Y-%m-%d}" in keys(owner, "list")
    side(owner, (ends, later))
    bundle_keys._record(owner, (ends, later))
    assert "Warning" not in keys(owner, "list")
