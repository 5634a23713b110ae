"""The benchmarks of a deploy compare like with like and fail when they should; no machine, no Ansible."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from ruamel.yaml import YAML

from rtinfra.config import SshSettings
from rtinfra.operations.resources import Absent, Directory, File, Unit
from rtinfra.paths import PROJECT
from tests.chaos.instants import USUAL

# Not installed, unlike rtinfra and roles: found from the project folder only.
sys.path.insert(0, str(PROJECT))
from benchmarks import noop, parameters, playbook, provision, script
from benchmarks.record import Desired, Observation

DESIRED = Desired(
    paths=[
        File(path="/etc/a.conf", content=b"{{ left as it is }}\n", mode="0600", owner="daemon"),
        Directory(path="/var/b", mode="2755", group="adm"),
        Absent(path="/etc/c"),
    ],
    packages=["chrony", "linux-image-rt-amd64/trixie-backports"],
    units=[
        Unit("on.service"),
        Unit("off.service", startup="disabled", running=False),
        Unit("never.timer", startup="masked", running=False),
        Unit("static.service", startup=None),
    ],
)


def result(round_trips: int = 9, pyinfra: float = 2.0, ansible: float = 60.0) -> noop.Result:
    """Return a result of three runs each; the playbook with loops is the faster one."""
    seconds = {
        "pyinfra": [pyinfra, pyinfra, 100.0],
        "ansible, a task per file": [2 * ansible] * 3,
        "ansible, loops": [1.0, ansible, ansible],
    }
    return noop.Result("rt1", "KVM", 4, {"paths": 3}, round_trips, 0, 157, seconds, [("connecting", 0.5)])


class TestPlaybooks:
    def test_everything_managed_is_in_both(self) -> None:
        single = playbook.single_tasks(DESIRED)
        assert [task["name"] for task in single] == [
            *("packages", "/etc/a.conf", "/var/b", "/etc/c"),
            *("on.service", "off.service", "never.timer", "static.service"),
        ]
        looped = playbook.looped_tasks(DESIRED)
        assert [len(task["loop"]) for task in looped[1:]] == [2, 1, 4]

    def test_a_loop_hands_on_every_argument(self) -> None:
        single = playbook.single_tasks(DESIRED)[1:]
        given = [value for task in single for key, value in task.items() if key != "name"]
        looped = [item for task in playbook.looped_tasks(DESIRED)[1:] for item in task["loop"]]
        assert sorted(map(str, looped)) == sorted(map(str, given))

    def test_optional_arguments_are_left_out_of_an_item_that_has_none(self) -> None:
        service = playbook.looped_tasks(DESIRED)[-1]["ansible.builtin.systemd_service"]
        assert service["name"] == "{{ item.name }}"
        assert service["enabled"] == "{{ item.enabled | default(omit) }}"

    def test_units(self) -> None:
        units = [task["ansible.builtin.systemd_service"] for task in playbook.single_tasks(DESIRED)[-4:]]
        assert units == [
            {"name": "on.service", "masked": False, "enabled": True, "state": "started"},
            {"name": "off.service", "masked": False, "enabled": False, "state": "stopped"},
            {"name": "never.timer", "masked": True, "state": "stopped"},
            {"name": "static.service", "state": "started"},
        ]

    def test_a_suite_is_no_part_of_a_package_name(self) -> None:
        packages = playbook.single_tasks(DESIRED)[0]["ansible.builtin.apt"]
        assert packages["name"] == ["chrony", "linux-image-rt-amd64"]

    def test_written_files_keep_their_bytes(self, tmp_path: Path) -> None:
        ssh = SshSettings(address="192.0.2.1", port=2222, key="/keys/lab", known_hosts="/keys/known")
        playbook.write(tmp_path, DESIRED, "rt1", ssh, tmp_path / "sockets")
        assert (tmp_path / "files/etc/a.conf").read_bytes() == b"{{ left as it is }}\n"
        (play,) = YAML(typ="safe").load(tmp_path / "tasks.yml")
        copy = play["tasks"][1]["ansible.builtin.copy"]
        assert copy == {
            "src": "etc/a.conf",
            "dest": "/etc/a.conf",
            "mode": "0600",
            "owner": "daemon",
            "group": "root",
        }
        host = YAML(typ="safe").load(tmp_path / playbook.INVENTORY)["all"]["hosts"]["rt1"]
        assert host["ansible_port"] == 2222
        assert "StrictHostKeyChecking=yes" in host["ansible_ssh_common_args"]


class TestVerdict:
    def test_the_fastest_playbook_and_medians_count(self) -> None:
        assert result().ratio == 30.0
        assert result().problems == []

    def test_one_round_trip_too_many_fails(self) -> None:
        assert result(round_trips=12).problems == []
        assert "13 round trips" in result(round_trips=13).problems[0]

    def test_too_slow_fails(self) -> None:
        assert result(pyinfra=6.0).problems == []
        assert "9.8 times" in result(pyinfra=6.1).problems[0]

    def test_json_has_limits_and_verdict(self) -> None:
        data = result(round_trips=13).to_json()
        assert data["limits"] == {"round_trips": 12, "ratio": 10.0}
        assert len(data["problems"]) == 1

    def test_transfers_are_round_trips_too(self) -> None:
        assert Observation(commands=9, transfers=2).round_trips == 11

    def test_parts_add_up(self) -> None:
        found = Observation(connect=1.0, facts=[("Host", 2.0), ("Units", 0.5)])
        parts = dict(noop.parts(found, total=4.5))
        assert parts["everything on this computer"] == 1.0
        assert parts["of which the slowest, Host"] == 2.0


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        (
            "rt1                        : ok=45   changed=0    unreachable=0    failed=0    skipped=0",
            ("45", "0", "0", "0"),
        ),
        ("rt1 : ok=4 changed=2 unreachable=0 failed=1 skipped=0", ("4", "2", "0", "1")),
    ],
)
def test_recap_of_ansible(line: str, counts: tuple[str, ...]) -> None:
    match = noop._RECAP.search(f"PLAY RECAP ****\n{line}\n")
    assert match is not None
    assert match.groups() == counts


@pytest.mark.slow
def test_a_plan_is_measured() -> None:
    # A process of its own: pyinfra's command makes the standard library cooperative.
    program = """
import json, logging, pyinfra
from benchmarks import plan
pyinfra.is_cli = True
logging.disable(logging.CRITICAL)
print(json.dumps(plan.measure(2).to_json()))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["hosts"] == 2 and found["changes"] > 150
    seconds = found["processor_seconds"]
    assert seconds["total"] == pytest.approx(sum(seconds[name] for name in ("settings", "operations", "plan")))


# ---- what is left of a word of the command line -------------------------------------------------------------


def test_what_a_core_took_is_counted() -> None:
    before = """           CPU0       CPU2       CPU3
  1:         9          0          4   IO-APIC   1-edge      i8042
LOC:      1000         50        700   Local timer interrupts
ERR:         0
@@
cpu0 0 0 900 100 0 0 1 2 3
cpu2 0 0 40 10 0 0 1 2 3
cpu3 0 0 7 1 0 0 1 2 3
"""
    after = (
        before.replace("700 ", "5700")
        .replace("         4   IO", "        14   IO")
        .replace("cpu3 0 0 7", "cpu3 0 0 27")
    )
    assert parameters.counted(before, after, 3, 10) == parameters.Core({"1": 1.0, "LOC": 500.0}, 2.0)
    assert parameters.counted(before, after, 2, 10) == parameters.Core({}, 0.0)


# ---- a first deploy against a shell script ----------------------------------------------------------------


class TestScript:
    TEXT = script.shell_script(DESIRED).decode()

    def test_a_shell_can_read_it(self) -> None:
        done = subprocess.run(["sh", "-n"], input=self.TEXT, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_it_does_each_thing_once_and_reboots_last(self) -> None:
        lines = self.TEXT.splitlines()
        stages = [line for line in lines if line.startswith("echo '@ ")]
        assert stages == [f"echo '@ {name}'" for name in ("packages", "files", "boot loader", "units", "reboot")]
        installs = [line for line in lines if line.startswith("apt-get") and " install " in line]
        assert [line.partition(" install ")[2] for line in installs] == ["chrony linux-image-rt-amd64/trixie-backports"]
        assert lines.count("/usr/sbin/update-grub") == 1
        assert lines[-1] == "systemctl reboot"

    def test_files_have_their_content_mode_and_owner(self, tmp_path: Path) -> None:
        # The very lines of the script, with another root.
        start = self.TEXT.index("base64 -d <<")
        packed = self.TEXT[start : self.TEXT.index("rm -f /etc/c")].replace("-C /", f"-C {tmp_path}")
        subprocess.run(["sh", "-c", packed], check=True)
        assert (tmp_path / "etc/a.conf").read_bytes() == b"{{ left as it is }}\n"
        assert (tmp_path / "etc/a.conf").stat().st_mode & 0o7777 == 0o600
        assert (tmp_path / "var/b").stat().st_mode & 0o7777 == 0o2755
        assert "\nchown daemon:root /etc/a.conf && chmod 0600 /etc/a.conf\n" in self.TEXT
        assert "\nchown root:adm /var/b && chmod 2755 /var/b\n" in self.TEXT
        # The accounts come before the files that belong to them.
        assert self.TEXT.index("\nsystemd-sysusers\n") < self.TEXT.index("\nchown ")

    def test_units(self) -> None:
        assert [line for line in self.TEXT.splitlines() if line.startswith("systemctl")] == [
            "systemctl enable --quiet on.service",
            "systemctl disable --quiet off.service",
            "systemctl mask --quiet never.timer",
            "systemctl reboot",
        ]

    def test_nothing_of_a_file_is_read_as_a_command(self) -> None:
        content = b"END-OF-FILES\nreboot -f\n"
        text = script.shell_script(Desired(paths=[File(path="/etc/x", content=content)])).decode()
        body = text.partition("<<'END-OF-FILES'")[2].partition("\n")[2].partition("\nEND-OF-FILES\n")[0]
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(body))) as tar:
            member = tar.extractfile("etc/x")
            assert member is not None
            assert member.read() == content


def provisioned(deploy: float = 110.0, script: float = 100.0, differences: tuple[str, ...] = ()) -> provision.Result:
    """Return a result with packages and the reboot on both sides, and a guard that only the deploy has."""
    ours = (("packages", deploy - 40), ("rt_kernel | last known good", 10.0), ("rt_kernel | reboot when needed", 30.0))
    theirs = (("packages", script - 20), ("reboot", 20.0))
    sides = provision.Side(deploy, ours), provision.Side(script, theirs)
    return provision.Result("KVM", 4, {"paths": 3}, *sides, differences)


class TestProvision:
    def test_parts_last_until_the_next_begins(self) -> None:
        events = [(2.0, "packages"), (10.0, "files"), (11.0, "packages")]
        assert dict(provision.timeline(events, 12.0, "start")) == {"start": 2.0, "packages": 9.0, "files": 1.0}
        assert provision.timeline([], 3.0, "start") == (("start", 3.0),)

    @given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from("abc")), max_size=8))
    def test_parts_add_up(self, events: list[tuple[int, str]]) -> None:
        ordered = [(float(moment), name) for moment, name in sorted(events)]
        assert sum(seconds for _, seconds in provision.timeline(ordered, 1000.0, "start")) == 1000.0

    def test_what_does_the_same_stands_side_by_side(self) -> None:
        deployed = (
            ("rt_kernel | last known good", 15.0),
            ("packages", 210.0),
            ("base | files", 4.0),
            ("rt_app | files", 6.0),
            ("rt_kernel | boot loader", 16.0),
            ("rt_kernel | reboot when needed", 60.0),
        )
        rows = provision.compared(
            deployed, (("packages", 200.0), ("files", 3.0), ("boot loader", 8.0), ("reboot", 50.0))
        )
        assert [(row.part, row.deploy, row.script) for row in rows] == [
            ("rt_kernel | last known good", 15.0, 0.0),
            ("packages", 210.0, 200.0),
            ("files", 10.0, 3.0),
            ("boot loader", 16.0, 8.0),
            ("reboot", 60.0, 50.0),
        ]
        assert rows[2].more == 7.0

    def test_a_stage_that_the_deploy_has_not_is_shown_too(self) -> None:
        assert provision.compared((), (("units", 1.0),)) == [provision.Row("units", 0.0, 1.0)]

    def test_every_stage_has_its_operations_in_the_plan(self) -> None:
        # The names under which runner.py and the chaos tests know them.
        assert set(provision._STAGES) <= USUAL.keys()
        assert any(name.endswith(provision._FILES_SUFFIX) for name in USUAL)

    def test_nothing_is_lost_between_operations_and_rows(self) -> None:
        result = provisioned()
        assert sum(row.deploy for row in result.rows) == result.deploy.seconds
        assert sum(row.script for row in result.rows) == result.script.seconds

    def test_which_entry_was_booted_is_no_difference(self) -> None:
        ours = provision.end_state(
            "6.12-rt\nBOOT_IMAGE=/boot/rtinfra/1/vmlinuz ro isolcpus=2-3 rtinfra.good=1\na 1\nb 2\n"
        )
        theirs = provision.end_state("6.12-rt\nBOOT_IMAGE=/boot/vmlinuz ro isolcpus=2-3\na 1\nb 2\n")
        assert provision.differences(ours, theirs) == ()
        other = replace(theirs, release="6.12", command_line=frozenset({"ro"}), packages=frozenset({"a 1", "b 3"}))
        assert provision.differences(ours, other) == (
            "the deploy's kernel is 6.12-rt, the script's 6.12",
            "word of the command line only after the deploy: isolcpus=2-3",
            "package only after the deploy: b 2",
            "package only after the script: b 3",
        )

    def test_files_are_checked_in_their_last_form(self) -> None:
        twice = Desired(paths=[*DESIRED.paths, File(path="/etc/a.conf", content=b"later\n")])
        last = File(path="/etc/a.conf", content=b"later\n").sha256
        assert provision.checksums(twice) == f"{last}  /etc/a.conf\n"

    def test_units_that_are_waited_for(self) -> None:
        assert provision.running_units(DESIRED) == ["on.service", "static.service"]

    def test_too_slow_fails(self) -> None:
        assert provisioned(deploy=115.0).problems == []
        (problem,) = provisioned(deploy=116.0).problems
        assert "1.16 times as long as the script" in problem

    def test_another_end_state_fails_however_quick(self) -> None:
        (problem,) = provisioned(deploy=50.0, differences=("package only after the script: b 3",)).problems
        assert "package only after the script: b 3" in problem

    def test_the_table_says_where_the_time_goes(self) -> None:
        console = Console(width=140, record=True, file=io.StringIO())
        provision.show(provisioned(), console)
        text = console.export_text()
        for words in ("rt_kernel | last known good", "10.0", "1.10 times as long", "at most 1.15"):
            assert words in text
        assert provisioned().to_json()["ratio"] == 1.1

    def test_the_deploy_measures_no_latency_when_the_file_is_there(self) -> None:
        golden = (PROJECT / "tests/golden/expected/debian-13.txt").read_text(encoding="utf-8")
        assert f"if [ -s {provision.LATENCY_BEFORE} ] " in golden
