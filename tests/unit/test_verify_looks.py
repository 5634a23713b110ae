"""Looks: recorded answers hold what is asked today, and what a host says cannot pass for something else."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roles.fleet import load_hosts
from rtinfra.facts import output_sections
from rtinfra.paths import PROJECT
from rtinfra.verify.look import memory, mirror_client, packages, threads
from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions
from rtinfra.verify.snapshot import LOOKS, Look, SnapshotError, commands, parse, script
from tests.record_looks import (
    ANSWERING,
    PLACE,
    SUBJECTS,
    as_answered,
    files,
    questions_of,
    recorded,
    rt_host,
    sections_of,
    subject_of,
)

# Hosts that, together, are asked everything that verification can ask.
INVENTORY = """hosts:
  robot:
    groups: [rt_hosts, lab, agents, preflight]
    ssh: {address: 192.0.2.1}
    settings: {agents: {logs: filebeat, filebeat: {password_secret: elastic}}, telemetry: {logs: elasticsearch}}
  backend: {groups: [gateways, jaeger, prometheus, elasticsearch], ssh: {address: 192.0.2.2}}
  mirror: {groups: [mirror_server, mirror_client], ssh: {address: 192.0.2.5}}
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Questions]:
    """What is asked of each host of the inventory."""
    inventory = tmp_path_factory.mktemp("inventory") / "hosts.yaml"
    inventory.write_text(INVENTORY)
    fleet = load_hosts(PROJECT, inventory)
    return [questions_of(fleet, host) for host in fleet.hosts.values()]


@pytest.mark.parametrize("look", LOOKS, ids=SUBJECTS)
def test_the_recorded_answer_has_what_is_asked_and_nothing_else(look: Look, asked: list[Questions]) -> None:
    expected = {name for questions in asked for name in sections_of(look, questions)}
    text = (PLACE / f"{subject_of(look)}.txt").read_text(encoding="utf-8")
    there = [
        line.removeprefix(output_sections.MARKER)
        for line in text.splitlines()
        if line.startswith(output_sections.MARKER)
    ]
    assert sorted(there) == sorted(expected), "record it again: python -m tests.record_looks"


def test_every_recording_belongs_to_a_look() -> None:
    assert {path.stem for path in PLACE.glob("*.txt")} == set(SUBJECTS)


def test_no_two_looks_ask_for_the_same_section(asked: list[Questions]) -> None:
    for questions in asked:
        names = [name for look in LOOKS for name in sections_of(look, questions)]
        assert len(names) == len(set(names))


def test_what_is_watched_is_asked_first_and_last(asked: list[Questions]) -> None:
    names = list(commands(asked[0]))
    assert set(names[:2]) == {"interrupts_before", "loop_before"}
    assert set(names[-2:]) == {"interrupts_after", "loop_after"}


def test_a_host_is_asked_in_one_script_with_few_processes(asked: list[Questions]) -> None:
    text = script(asked[0])
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0
    assert text.count("grep -sHZ") <= 14, "files are read by the hundred"
    assert text.count("systemctl show") <= 3
    assert text.count("dpkg-query") == 1


def test_recording_a_recorded_host_gives_the_same_files(asked: list[Questions]) -> None:
    # Those parts of the recordings that a host is asked for; the first host is asked most of them.
    for subject, text in files(recorded(SUBJECTS), asked[0]):
        parts, there = (
            output_sections.parse(as_answered(one.removesuffix("\n")).split("\n"))
            for one in (text, (PLACE / f"{subject}.txt").read_text(encoding="utf-8"))
        )
        assert parts == {name: there[name] for name in parts}


def test_ids_of_disks_are_not_recorded(asked: list[Questions]) -> None:
    own = "6f1d3c4e-1b2a-4c3d-8e4f-5a6b7c8d9e0f"
    text = rt_host().replace("00000000-0000-4000-8000-000000000002", own)
    assert own in text
    assert own not in "".join(body for _, body in files(text, asked[0]))


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=60), max_size=8))
def test_foreign_text_begins_no_section(lines: list[str]) -> None:
    marker = output_sections.unguessable_marker()
    text = "\n".join([f"{marker}a", *lines, "@@end", f"{marker}end", "reached"])
    assert output_sections.parse(text.split("\n"), marker) == {"a": [*lines, "@@end"], "end": ["reached"]}


def test_a_checkpoint_cannot_forge_what_the_kernel_says() -> None:
    marker = output_sections.unguessable_marker()
    forged = "\n@@slice_values\n/sys/fs/cgroup/cpuset.cpus.isolated\x000-1"
    text = rt_host().replace("@@", marker).replace('"crc32"', f'{forged}\n"crc32"')
    assert parse(text, marker).slices.isolated == {2, 3}


def test_the_played_host_answers_under_the_marker_it_was_asked_with(asked: list[Questions], tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    answer.write_text(rt_host(), encoding="utf-8")
    questions = replace(asked[0], marker=output_sections.unguessable_marker())
    played = ["sh", "-c", f"{ANSWERING}{answer}"]
    text = subprocess.run(played, input=script(questions), capture_output=True, text=True, check=True).stdout
    assert parse(text, questions.marker).kernel.release == "6.12.117+deb13-rt-amd64"


@settings(deadline=None)
@given(st.data())
def test_whatever_a_host_says_is_read_or_refused(data: st.DataObject) -> None:
    """Never an error that would end the verification of all other hosts."""
    found = output_sections.parse(rt_host().split("\n"))
    name = data.draw(st.sampled_from(sorted(found)))
    lines = [*found[name][:5], ""]
    number = data.draw(st.integers(0, len(lines) - 1))
    garbled = st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=40)
    cut = data.draw(st.integers(0, len(lines[number])))
    lines[number] = lines[number][:cut] + data.draw(garbled)
    text = "\n".join(line for key, content in (found | {name: lines}).items() for line in (f"@@{key}", *content))
    try:
        parse(text)
    except SnapshotError as error:
        assert "the host's answer" in str(error)


@given(st.text(st.characters(exclude_characters="\0\n", codec="utf-8"), min_size=1, max_size=15))
def test_a_thread_has_the_name_it_gave_itself(name: str) -> None:
    fields = " ".join(["0"] * 36 + ["50", "2"])
    seen = threads.read(
        Answer(
            {
                "thread_stat": [f"/proc/7/task/8/stat\x008 ({name}) S {fields}"],
                "thread_status": ["/proc/7/task/8/status\0Cpus_allowed_list:\t0-1"],
                "cgroups": ["/proc/7/cgroup\x000::/system.slice/a.service"],
            }
        )
    )
    (thread,) = seen.of("a.service")
    assert (thread.name, thread.tid, thread.pid, thread.cpus, thread.policy) == (name, 8, 7, {0, 1}, 2)


@given(st.lists(st.tuples(st.sampled_from(["bind:1", "default", "prefer:0"]), st.integers(1, 500), st.integers(0, 3))))
def test_shares_of_memory_add_up(mappings: list[tuple[str, int, int]]) -> None:
    lines = [
        f"7f00 {policy} anon={pages} dirty={pages} N{node}={pages} kernelpagesize_kB=4"
        for policy, pages, node in mappings
    ]
    seen = memory.read(Answer({"numa_maps": lines}))
    assert seen.everything == seen.private
    assert seen.everything.total_kb == sum(seen.kb_by_policy.values()) == 4 * sum(pages for _, pages, _ in mappings)
    whole = 100 if mappings else 0
    assert sum(map(seen.policy_share, seen.kb_by_policy)) == pytest.approx(whole)
    assert sum(map(seen.everything.share, range(4))) == pytest.approx(whole)


def test_a_package_of_two_architectures_is_there_when_one_is() -> None:
    lines = ["libc6 installed 2.41-12", "libc6 config-files 2.40-1", "nano config-files 8.4-1", "half unpacked "]
    seen = packages.read(Answer({"packages": lines}))
    assert (seen.state("libc6"), seen.all["libc6"].version) == ("installed", "2.41-12")
    assert [seen.state(name) for name in ("nano", "half", "vim")] == ["config-files", "unpacked", "absent"]


def test_apt_is_not_asked_in_the_root_of_a_host_without_temporary_folders(
    asked: list[Questions], tmp_path: Path
) -> None:
    """An empty name of the folder would have been `/lists`, written by root."""
    for name, text in {"mktemp": "exit 1", **dict.fromkeys(("mkdir", "rm", "apt-get"), 'echo "$0 $*"')}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    fresh = mirror_client.ask(asked[-1])["mirror_fresh"]
    run = subprocess.run(["/bin/sh", "-c", fresh], env={"PATH": str(tmp_path)}, capture_output=True, check=False)
    assert run.stdout == b""
