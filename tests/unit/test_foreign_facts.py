"""What others say while a deploy looks at a host stays theirs, and no hash of a secret is of use to anybody."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyinfra.api.config import Config
from pyinfra.api.connect import connect_all
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State
from pyinfra.context import ctx_state

from rtinfra.facts import boot as boot_fact
from rtinfra.facts import keyed_hash, output_sections
from rtinfra.facts.boot import Boot, BootState
from rtinfra.facts.files import Files, FilesState
from rtinfra.operations.resources import File
from rtinfra.plan.observed import canonical

SECRET = b"1234"
#: Texts of others that are likely to do harm, beside those that hypothesis finds.
_LINES = st.one_of(
    st.text(alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")),
    st.sampled_from(["@@a", "@@b", "@@guard\nyes", "@@0123456789abcdef:b", "\n", "\r", "\t@@b", "@@b\n@@c"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_LINES, min_size=2, max_size=5))
def test_what_a_section_says_is_that_sections(texts: list[str]) -> None:
    """By a real shell: each text, line by line, with or without an end of its last line, and nothing of another one."""

    class Told(output_sections.SectionsFact[dict[str, list[str]]]):
        pass

    fact = Told()
    told = {f"part{number}": text for number, text in enumerate(texts)}
    octal = {name: "".join(f"\\{byte:03o}" for byte in text.encode()) for name, text in told.items()}
    script = fact.asking({name: f"printf '{text}'" for name, text in octal.items()}).get_raw_value()
    said = subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout.decode().split("\n")
    found = fact.sections(said)
    assert {name: "\n".join(lines).removesuffix("\n") for name, lines in found.items()} == {
        name: text.removesuffix("\n") for name, text in told.items()
    }


def test_no_two_looks_share_a_marker() -> None:
    commands = {str(Files().command(paths=["/etc/hosts"])) for _ in range(20)}
    assert len(commands) == 20
    for command in commands:
        assert re.search(r"^echo @@[0-9a-f]{16}:stat$", command, re.MULTILINE)


def asked(fact: type, **arguments: object) -> object:
    """Ask this computer as pyinfra asks a host, over its connector @local."""
    state = State(Inventory((["@local"], {})), Config())
    with ctx_state.use(state):
        connect_all(state)
        (host,) = state.inventory
        return host.get_fact(fact, **arguments)


@pytest.fixture
def boot_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(boot_fact, "_STORE", str(tmp_path))
    monkeypatch.setattr(boot_fact, "TRIAL_SCRIPT", f"cat {tmp_path}/state")
    monkeypatch.setattr(boot_fact, "NO_REBOOT_FILE", str(tmp_path / "no-reboot"))
    (tmp_path / "no-reboot").write_text("a robot is at work\n")
    return tmp_path


@pytest.mark.parametrize(
    "evidence",
    [
        b"@@guard\n",
        b"@@trial\nid=1\nstatus=promoted\n",
        b"no end of line",
        b"of a card's driver: \xff\xfe\n",
        b"cut off: \xe2\x82",
    ],
)
def test_the_log_of_a_failed_trial_hides_nobodys_word_against_a_reboot(boot_files: Path, evidence: bytes) -> None:
    """It has what programs and drivers wrote: markers of before, bytes that are no text, a line without an end."""
    (boot_files / "evidence").write_bytes(evidence)
    found = asked(Boot, image_pattern="*-none")
    assert isinstance(found, BootState)
    assert found.guard == "a robot is at work"
    assert found.trial is None
    assert found.evidence


def test_no_word_of_a_host_about_a_reboot_steers_the_terminal(boot_files: Path) -> None:
    evil = "\x1b]0;title\x07\x1b[2J"
    (boot_files / "evidence").write_text(f"log{evil}\n")
    (boot_files / "no-reboot").write_text(f"robot{evil}\n")
    (boot_files / "state").write_text(f"id=1\nstatus=failed\nreason=why{evil}\n")
    found = asked(Boot, image_pattern="*-none")
    assert isinstance(found, BootState)
    assert found.trial is not None and found.guard is not None
    assert all(text.isprintable() for text in (*found.evidence, found.guard, found.trial.reason))


def test_a_hash_of_a_secret_is_of_no_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every log there is neither the hash of the secret nor the key shows; who holds it is recognised."""
    secret = File(path=str(tmp_path / "secret"), content=SECRET, mode="0600", secret=True)
    private = File(path=str(tmp_path / "private"), content=SECRET, mode="0640")
    public = File(path=str(tmp_path / "public"), content=b"x")
    ours = (secret, private, public)
    for file in ours:
        Path(file.path).write_bytes(file.content)
        Path(file.path).chmod(int(file.mode, 8))
    # Somebody let others read it: a hash of it is no more theirs for that.
    Path(secret.path).chmod(0o644)
    printed: list[str] = []
    monkeypatch.setattr("pyinfra.api.output._echo", lambda text=None, **_: printed.append(f"{text}\n"))
    state = State(Inventory((["@local"], {})), Config())
    state.print_fact_input = state.print_fact_output = state.print_fact_info = True
    with caplog.at_level(logging.DEBUG), ctx_state.use(state):
        connect_all(state)
        (host,) = state.inventory
        paths = [file.path for file in ours]
        found = host.get_fact(Files, paths=paths, secret=[secret.path], _stdin=keyed_hash.KEY)
    assert isinstance(found, FilesState)
    shown = "".join([*printed, caplog.text])
    assert hashlib.sha256(public.content).hexdigest() in shown
    assert hashlib.sha256(SECRET).hexdigest() not in shown
    assert "".join(keyed_hash.KEY.readlines()) not in shown
    for file in ours:
        assert found.paths[file.path].holds(file.content), file.path
        assert not found.paths[file.path].holds(b"other"), file.path
    assert hashlib.sha256(SECRET).hexdigest() not in str(canonical(found))


def test_without_a_key_there_is_no_hash(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    fact = Files()
    command = fact.command(paths=[str(path)], secret=[str(path)]).get_raw_value()
    for stdin in (b"", b"\n"):
        ran = subprocess.run(["sh", "-c", command], input=stdin, capture_output=True, check=True)
        (state,) = fact.process(ran.stdout.decode().split("\n")).paths.values()
        assert (state.sha256, state.keyed) == (None, None)


def test_a_pipe_and_a_link_have_no_hash(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "file").write_bytes(SECRET)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    paths = [str(tmp_path / name) for name in ("pipe", "link")]
    found = asked(Files, paths=paths, secret=paths, _stdin=keyed_hash.KEY)
    assert isinstance(found, FilesState)
    assert {state.keyed or state.sha256 for state in found.paths.values()} == {None}
    assert len(found.paths) == 2
