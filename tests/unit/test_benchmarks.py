"""The benchmark compares like with like and fails when it should; no machine, no Ansible."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from rtinfra.config import SshSettings
from rtinfra.operations.managed import Absent, Directory, File, Unit
from rtinfra.paths import PROJECT

# Not installed, unlike rtinfra and roles: found from the project folder only.
sys.path.insert(0, str(PROJECT))
from benchmarks import noop, playbook
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
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["hosts"] == 2 and found["changes"] > 150
    seconds = found["processor_seconds"]
    assert seconds["total"] == pytest.approx(sum(seconds[name] for name in ("settings", "operations", "plan")))
