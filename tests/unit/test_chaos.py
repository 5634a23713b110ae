"""The tools of the power cut scenarios: the moments, following a deploy, comparing two hosts, the cut itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtinfra.lab import qemu
from rtinfra.runner import DeployResult
from tests.chaos import gather
from tests.chaos.instants import COUNT, FEW, USUAL, Follower, Instant, follow, instants, spread
from tests.chaos.state import HostState, differences

NAMES = st.text("abc/.", min_size=1, max_size=4)
SECTIONS = st.dictionaries(st.sampled_from(["packages", "files", "units"]), st.dictionaries(NAMES, st.text(max_size=3)))


class TestMoments:
    def test_the_same_seed_gives_the_same(self) -> None:
        assert instants(1) == instants(1) != instants(2)

    @given(st.integers())
    def test_they_stand_in_order_and_reach_the_reboot(self, seed: int) -> None:
        chosen = instants(seed)
        order = [(list(USUAL).index(moment.operation), moment.share) for moment in chosen]
        assert order == sorted(order) and len(chosen) == COUNT
        assert all(0 <= moment.share <= 1 for moment in chosen)
        assert "rt_kernel | reboot when needed" in {moment.operation for moment in chosen}

    def test_those_of_continuous_integration(self) -> None:
        few = [moment.operation for moment in instants() if moment.number in FEW]
        assert few == ["packages", "rt_kernel | boot loader", "rt_kernel | reboot when needed"]

    def test_those_of_a_number(self) -> None:
        assert len(spread(instants(), 6)) == 6
        assert spread(instants(), COUNT) == instants()


class TestFollowing:
    MOMENT = Instant(0, "packages", 0.5)

    def follower(self, slowness: float = 1) -> tuple[Follower, list[float]]:
        now = [0.0]
        return Follower(slowness, lambda: now[0]), now

    def test_share_of_the_usual_time_on_a_slow_machine(self) -> None:
        follower, now = self.follower(slowness=2)
        assert not follower.reached(self.MOMENT)
        follower.line("--> Starting operation: packages ")
        now[0] = USUAL["packages"] - 1
        assert not follower.reached(self.MOMENT)
        now[0] = USUAL["packages"]
        assert follower.reached(self.MOMENT)

    def test_an_operation_that_ended_sooner(self) -> None:
        follower, _ = self.follower()
        follower.line("--> Starting operation: packages")
        follower.line("--> Starting operation: units")
        assert follower.reached(self.MOMENT)

    def test_all_are_acted_on_in_order_also_when_the_deploy_fails(self) -> None:
        def deploy(say: Callable[[str], None]) -> DeployResult:
            say("--> Starting operation: packages")
            return DeployResult(1, 0, 0, 1, (), 0.0, "")

        acted: list[Instant] = []
        assert not follow(deploy, instants(), 1.0, acted.append).ok
        assert acted == instants()


class TestComparing:
    @given(SECTIONS)
    def test_a_state_equals_itself(self, sections: dict[str, dict[str, str]]) -> None:
        state = HostState.parse(json.dumps(sections))
        assert differences(state, HostState.parse(json.dumps(sections))) == []

    @given(SECTIONS, SECTIONS)
    def test_both_ways_name_the_same(self, one: dict[str, dict[str, str]], two: dict[str, dict[str, str]]) -> None:
        there, back = (
            {(found.section, found.name) for found in differences(*pair)}
            for pair in ((HostState(one), HostState(two)), (HostState(two), HostState(one)))
        )
        assert there == back
        expected = {(section, name, value) for section, values in one.items() for name, value in values.items()}
        actual = {(section, name, value) for section, values in two.items() for name, value in values.items()}
        assert there == {entry[:2] for entry in expected ^ actual}

    def test_a_difference_says_what(self) -> None:
        (found,) = differences(HostState({"units": {"a.service": "enabled"}}), HostState({}))
        assert str(found) == "units: a.service: expected enabled, found nothing"

    def test_ids_of_boot_entries_count_as_equal(self) -> None:
        def state(entry: str) -> HostState:
            path = f"/boot/rtinfra/{entry}/vmlinuz"
            return HostState.parse(
                json.dumps({"files": {path: "file", "/etc/a": entry}, "boot": {"grubenv: saved_entry": entry}})
            )

        assert [found.name for found in differences(state("0123456789ab"), state("ba9876543210"))] == ["/etc/a"]

    def test_a_uuid_is_no_id(self) -> None:
        one, two = (
            HostState({"boot": {"command line": f"root=UUID=01234567-89ab-cdef-0123-{end}"}})
            for end in ("0123456789ab", "ba9876543210")
        )
        one, two = (HostState.parse(json.dumps(state.sections)) for state in (one, two))
        assert len(differences(one, two)) == 1

    def test_two_entries_are_not_one(self) -> None:
        both = HostState.parse(
            '{"initrd": {"/boot/rtinfra/0123456789ab/initrd": "x", "/boot/rtinfra/ba9876543210/initrd": "x"}}'
        )
        one = HostState.parse('{"initrd": {"/boot/rtinfra/0123456789ab/initrd": "x"}}')
        assert len(differences(both, one)) == 1


class TestGathering:
    @pytest.fixture
    def tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(gather, "TREES", (str(tmp_path),))
        (tmp_path / "file").write_text("content")
        (tmp_path / "empty").mkdir()
        (tmp_path / "link").symlink_to("file")
        return tmp_path

    def test_files(self, tree: Path) -> None:
        found = gather.files()
        assert set(found) == {str(tree), *(f"{tree}/{name}" for name in ("file", "empty", "link"))}
        assert found[f"{tree}/link"] == "link to file"
        assert found[f"{tree}/empty"].startswith("directory 0755 ")

    def test_a_file_without_its_content_is_another(self, tree: Path) -> None:
        before = gather.files()
        (tree / "file").write_bytes(b"\0" * len("content"))
        after = gather.files()
        assert {name for name in before if before[name] != after[name]} == {f"{tree}/file"}

    @pytest.mark.parametrize(
        "path",
        [
            "/etc/machine-id",
            "/etc/ssh/ssh_host_ed25519_key.pub",
            "/boot/initrd.img-6.12-rt",
            "/usr/lib/python3/__pycache__/a.pyc",
            "/boot/grub/grubenv",
        ],
    )
    def test_left_out(self, path: str) -> None:
        assert gather._LEFT_OUT.fullmatch(path)

    @pytest.mark.parametrize("path", ["/etc/passwd", "/boot/vmlinuz-6.12-rt", "/var/lib/dpkg/info/chrony.list"])
    def test_compared(self, path: str) -> None:
        assert not gather._LEFT_OUT.fullmatch(path)

    @pytest.mark.parametrize(
        "path",
        [
            "/etc/.rtinfra-new",
            "/etc/.rtinfra-new.hosts",
            "/etc/a.dpkg-new",
            "/boot/grub/grub.cfg.new",
            "/var/lib/rtinfra/stage.1a2b3c4d/root/etc",
        ],
    )
    def test_unfinished(self, path: str) -> None:
        assert gather.UNFINISHED.fullmatch(path)


class TestPowerCut:
    """With qemu-io, QEMU's own program for trying its block layer: it writes as a guest would."""

    FLUSHED, NEW_PLACE, SAME_PLACE = 1, 2, 3

    @pytest.fixture
    def wiring(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[qemu.Wiring]:
        disk, pidfile = tmp_path / "disk.qcow2", tmp_path / "pid"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "16M"], check=True)
        writes = [f"write -P {self.FLUSHED} 0 1M", "flush", f"write -P {self.NEW_PLACE} 1M 1M"]
        writes += [f"write -P {self.SAME_PLACE} 0 64k", "sleep 60000"]
        words = [
            "stdbuf",
            "-oL",
            "qemu-io",
            "-t",
            "unsafe",
            *(word for line in writes for word in ("-c", line)),
            str(disk),
        ]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(6):  # two lines for each write
            process.stdout.readline()
        pidfile.write_text(str(process.pid))
        monkeypatch.setattr(qemu, "is_ours", lambda pid, _: process.poll() is None)
        yield qemu.Wiring("a", disk, disk, disk, disk, disk, pidfile, tmp_path / "qmp", (), (), ("", 0))
        process.kill()
        process.wait()

    def holds(self, disk: Path, pattern: int, place: str) -> bool:
        """Whether the disk has these bytes there, once its process is gone."""
        words = ["qemu-io", "-r", "-f", "qcow2", "-c", f"read -P {pattern} {place}", str(disk)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def test_what_was_flushed_stays_and_what_went_to_new_places_since_is_lost(self, wiring: qemu.Wiring) -> None:
        qemu.cut_off(wiring)
        assert self.holds(wiring.disk, self.FLUSHED, "64k 960k")
        assert not self.holds(wiring.disk, self.NEW_PLACE, "1M 1M")
        # Later than what is lost, as it may be with the cache of a real disk.
        assert self.holds(wiring.disk, self.SAME_PLACE, "0 64k")
        assert not wiring.pidfile.exists()

    def test_a_copy_made_while_it_stands_still_is_what_the_cut_leaves(self, wiring: qemu.Wiring) -> None:
        with qemu.standing_still(wiring):
            copy = wiring.disk.read_bytes()
        qemu.cut_off(wiring)
        assert wiring.disk.read_bytes() == copy
