"""The program that keeps the partition of the real-time cores, on a tree that plays the kernel's control groups.

What the kernel does with it, real groups have to show: tests/e2e/test_4_isolation.py.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtinfra.cpu import format_cpu_list
from rtinfra.render import render


class Program:
    """The program, its tree, and what it asked of systemd."""

    def __init__(self, folder: Path) -> None:
        self.groups = folder / "cgroup"
        (folder / "tuning.conf").write_text("ISOLATED=2-3\nISOLATED_CORES='2 3'\nHOUSEKEEPING=0-1\n")
        text = render("rt_tuning/partition.sh.j2", slice="rt.slice").decode()
        for place, own in {"/sys/fs/cgroup": self.groups, "/etc/rtinfra": folder}.items():
            assert place in text
            text = text.replace(place, str(own))
        (folder / "partition").write_text(text)
        (folder / "bin").mkdir()
        asked = folder / "asked"
        (folder / "bin/systemctl").write_text(
            f'#!/bin/sh\necho "$*" >>{asked}\n[ "$1" != show ] || echo /etc/systemd/system/foo.slice.d/99-other.conf\n'
        )
        (folder / "bin/systemctl").chmod(0o755)
        self._folder, self._asked = folder, asked
        self.group("rt.slice", partition="isolated", effective="2-3", cpus="2-3")
        self.group(".", effective="0-1")

    def group(self, name: str, **files: str) -> None:
        """Set files `cpuset.cpus`, `cpuset.cpus.effective` and `cpuset.cpus.partition` of a group."""
        (self.groups / name).mkdir(parents=True, exist_ok=True)
        for key, text in files.items():
            (self.groups / name / ("cpuset.cpus" if key == "cpus" else f"cpuset.cpus.{key}")).write_text(f"{text}\n")

    def cpus(self, name: str) -> str:
        return (self.groups / name / "cpuset.cpus").read_text().strip()

    def once(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self._folder / "partition"), "--once"],
            capture_output=True,
            text=True,
            env={"PATH": f"{self._folder}/bin:/usr/bin:/bin"},
            check=False,
        )

    @property
    def asked(self) -> list[str]:
        return self._asked.read_text().splitlines() if self._asked.exists() else []


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def test_a_partition_that_holds_is_left_alone(program: Program) -> None:
    done = program.once()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("own", "everybody"),
    [
        ({"partition": "member"}, "0-3"),
        ({"partition": "isolated invalid (Cpu list in cpuset.cpus not exclusive)"}, "0-3"),
        # The word stands there after cores went away and came back.
        ({"partition": "isolated", "effective": "3"}, "0-2"),
        ({"partition": "isolated"}, "0-1,3"),
    ],
)
def test_what_the_kernel_refuses_is_told_with_its_words(program: Program, own: dict[str, str], everybody: str) -> None:
    """The write succeeds whatever the kernel thinks of it, so its files are read again."""
    program.group("rt.slice", **own)
    program.group(".", effective=everybody)
    done = program.once()
    assert done.returncode == 1
    assert f"everybody's are {everybody}" in done.stderr
    assert (program.groups / "rt.slice/cpuset.cpus.partition").read_text() == "isolated\n", "it was tried"


def test_a_slice_that_asks_for_the_cores_is_named_and_loses_them(program: Program) -> None:
    program.group(".", effective="0-3")
    program.group("foo.slice", cpus="0-3", effective="0-3")
    program.group("system.slice", cpus="0-1", effective="0-1")
    done = program.once()
    assert "foo.slice asks for the cores 0-3" in done.stdout
    assert "/etc/systemd/system/foo.slice.d/99-other.conf" in done.stdout, "whose file it is"
    assert program.cpus("foo.slice") == "0-1"
    assert "set-property --runtime -- foo.slice AllowedCPUs=0-1" in program.asked
    assert not [line for line in program.asked if "system.slice" in line]


def test_a_group_that_systemd_does_not_know_loses_them_too(program: Program) -> None:
    program.group(".", effective="0-3")
    program.group("docker", cpus="3", effective="3")
    program.once()
    assert program.cpus("docker") == "0-1"
    assert not [line for line in program.asked if line.startswith("set-property")]


def test_without_the_slice_it_says_so(program: Program) -> None:
    for file in (program.groups / "rt.slice").iterdir():
        file.unlink()
    (program.groups / "rt.slice").rmdir()
    done = program.once()
    assert done.returncode == 1 and "cannot be made" in done.stderr


_MEETS = render("rt_tuning/meets.sh.j2").decode()


@given(
    st.lists(st.tuples(st.frozensets(st.integers(0, 15)), st.frozensets(st.integers(0, 15), min_size=1)), max_size=20)
)
def test_a_list_meets_the_isolated_cores(pairs: list[tuple[frozenset[int], frozenset[int]]]) -> None:
    """All pairs of one example in one shell: starting one is what costs."""
    calls = [
        f"ISOLATED_CORES='{' '.join(map(str, sorted(cores)))}'; meets '{format_cpu_list(cpus)}' && echo yes || echo no"
        for cpus, cores in pairs
    ]
    text = "\n".join(["set -u", _MEETS, *calls])
    found = subprocess.run(["sh"], input=text, capture_output=True, text=True, check=True).stdout.split()
    assert found == ["yes" if cpus & cores else "no" for cpus, cores in pairs]


@pytest.mark.parametrize(("asked", "delivered", "written"), [("0-1", "3", 1), ("0-1", "1", 0), ("0-3", "0", 1)])
def test_an_interrupt_that_is_delivered_elsewhere_is_sent_again(
    tmp_path: Path, asked: str, delivered: str, written: int
) -> None:
    """A mask that is as it should be is written again where the kernel shows that it has no effect."""
    (tmp_path / "tuning.conf").write_text("ISOLATED_CORES='2 3'\nHOUSEKEEPING=0-1\n")
    directory = tmp_path / "irq/9"
    directory.mkdir(parents=True)
    (directory / "smp_affinity_list").write_text(f"{asked}\n")
    (directory / "effective_affinity_list").write_text(f"{delivered}\n")
    # Its time tells whether it was written.
    os.utime(directory / "smp_affinity_list", (0, 0))
    text = render("rt_tuning/irq-watch.sh.j2").decode()
    text = text.replace("/etc/rtinfra", str(tmp_path)).replace("/proc/irq", str(tmp_path / "irq"))
    subprocess.run(["sh", "-s", "--", "--once"], input=text, text=True, check=True)
    assert ((directory / "smp_affinity_list").stat().st_mtime > 0) == bool(written)
    assert (directory / "smp_affinity_list").read_text() == "0-1\n"


def test_needrestart_leaves_the_real_time_process_alone() -> None:
    """As needrestart(1) reads its files: Perl that fills a table of patterns."""
    text = render("rt_app/needrestart.conf.j2", units=("mxrc-rt.service",)).decode()
    script = (
        f"our %nrconf; {text}\n"
        "for my $unit (@ARGV) { my $kept = grep { $unit =~ $_ && $nrconf{override_rc}{$_} == 0 } "
        'keys %{$nrconf{override_rc}}; print $kept ? "kept\\n" : "restarted\\n" }'
    )
    done = subprocess.run(
        ["perl", "-e", script, "mxrc-rt.service", "mxrc-rtXservice", "ssh.service"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["kept", "restarted", "restarted"]
