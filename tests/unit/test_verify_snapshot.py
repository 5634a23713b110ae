"""The snapshot: what a real host answered, and answers that must not pass for "all is well"."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from roles.fleet import load_hosts
from rtinfra.facts import output_sections
from rtinfra.paths import PROJECT
from rtinfra.verify.look.boot import BootMenu
from rtinfra.verify.look.kernel import parameter_path, sysctl_path
from rtinfra.verify.questions import Questions, questions_of
from rtinfra.verify.snapshot import Snapshot, SnapshotError, parse, script
from tests.record_looks import rt_host

SAMPLE = rt_host()


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return parse(SAMPLE)


def asked_of(tmp_path: Path, groups: str) -> Questions:
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(f"hosts: {{robot: {{groups: [{groups}], ssh: {{address: 192.0.2.1}}}}}}\n")
    fleet = load_hosts(PROJECT, inventory)
    return questions_of(fleet, fleet.hosts["robot"])


def edited(section: str, *lines: str) -> str:
    """The sample with one section replaced."""
    found = output_sections.parse(SAMPLE.split("\n")) | {section: list(lines)}
    return "\n".join(line for name, content in found.items() for line in (f"@@{name}", *content))


def test_kernel(snapshot: Snapshot) -> None:
    assert snapshot.kernel.release == "6.12.117+deb13-rt-amd64"
    assert "PREEMPT_RT" in snapshot.kernel.version
    assert snapshot.kernel.config == "CONFIG_PREEMPT_RT=y"
    assert "nohz_full=2-3" in snapshot.kernel.command_line
    assert snapshot.kernel.log_is_complete
    assert snapshot.kernel.log == ()


def test_circumstances(snapshot: Snapshot) -> None:
    assert snapshot.computer.virtualisation == "qemu"
    assert snapshot.computer.is_virtual
    assert "QEMU" in snapshot.computer.model
    assert snapshot.computer.state.topology.nodes == {0: {0, 1}, 1: {2, 3}}


def test_lists_and_masks_are_read_as_sets(snapshot: Snapshot) -> None:
    assert snapshot.slices.isolated == {2, 3}
    assert snapshot.interrupts.default == snapshot.cpus.work == {0, 1}
    assert snapshot.cpus.work_queues["writeback"] == {0, 1}
    assert snapshot.slices.cpus("rt.slice") == {2, 3}
    assert snapshot.slices.cpus("absent.slice") == frozenset()


def test_nohz_full_of_a_kernel_that_was_not_told() -> None:
    text = SAMPLE.replace("nohz_full\x002-3", "nohz_full\0(null)")
    assert parse(text).cpus.nohz_full == frozenset()


def test_the_loop_thread(snapshot: Snapshot) -> None:
    loop = next(task for task in snapshot.threads.all if task.name == "cycle-loop")
    assert (loop.policy, loop.priority, loop.cpus) == (1, 90, {2})
    assert not loop.is_kernel
    assert not loop.is_worker
    assert loop in snapshot.threads.of("mxrc-rt.service")
    assert loop not in snapshot.threads.of("mxrc-non-rt.service")


def test_kernel_threads_are_told_from_programs(snapshot: Snapshot) -> None:
    assert {task.priority for task in snapshot.threads.kernel(r"ksoftirqd/\d+")} == {2}
    assert {task.cpus for task in snapshot.threads.kernel(r"rcuog/\d+")} == {frozenset({0, 1})}
    assert not snapshot.threads.kernel("systemd")


def test_a_thread_name_with_parentheses_and_blanks() -> None:
    stat = "/proc/7/task/7/stat\x007 (a) (b c) S " + " ".join(["0"] * 36 + ["50", "2"])
    status = "/proc/7/task/7/status\0Cpus_allowed_list:\t0-1"
    found = output_sections.parse(SAMPLE.split("\n"))
    text = edited("thread_stat", stat, *found["thread_stat"])
    text = text.replace("@@thread_status", f"@@thread_status\n{status}")
    task = next(task for task in parse(text).threads.all if task.tid == 7)
    assert (task.name, task.policy) == ("a) (b c", 2)


def test_interrupts(snapshot: Snapshot) -> None:
    by_number = {irq.number: irq for irq in snapshot.interrupts.all}
    assert by_number[4].users == "ttyS0"
    assert by_number[4].requested == {0, 1}
    assert by_number[4].is_movable
    # The queues of the disk are placed by the kernel: number 25 belongs to core 2 and cannot be moved.
    assert not by_number[25].is_movable
    assert by_number[25].requested == {2}
    assert sum(by_number[32].arrivals.values()) > 0


def test_units(snapshot: Snapshot) -> None:
    unit = snapshot.units.of("mxrc-rt.service")
    assert (unit["Type"], unit["WatchdogUSec"], unit["NUMAPolicy"]) == ("notify", "10s", "bind")
    assert snapshot.units.of("unheard-of.service") == {}
    assert snapshot.watchdog.manager["RuntimeWatchdogUSec"] == "20s"
    assert snapshot.units.failed == ()
    assert snapshot.units.exposure["mxrc-rt.service"] < 3


def test_watchdogs_by_identity(snapshot: Snapshot) -> None:
    assert {(dog.identity, dog.state) for dog in snapshot.watchdog.devices} >= {("i6300ESB timer", "active")}


def test_boot_menu(snapshot: Snapshot) -> None:
    entry = snapshot.boot.menu.default_entry
    assert entry is not None
    assert (entry.path, entry.image) == (("rtinfra-good",), "/boot/rtinfra/0123456789ab/vmlinuz")
    assert "isolcpus=managed_irq,2-3" in entry.words


@pytest.mark.parametrize(
    ("default", "image"),
    [("0", "/boot/a"), ("1", "/boot/b"), ("top", "/boot/a"), ("more>old", "/boot/c"), ("gone", None), ("7", None)],
)
def test_boot_menu_finds_the_default(default: str, image: str | None) -> None:
    lines = (
        f'set default="{default}"',
        "menuentry 'Top' $menuentry_id_option 'top' {",
        "\tlinux\t/boot/a quiet",
        "}",
        "menuentry 'Second' --id second {",
        "\tlinux /boot/b",
        "}",
        "submenu 'More' $menuentry_id_option 'more' {",
        "\tmenuentry 'Old' $menuentry_id_option 'old' {",
        "\t\tlinux /boot/c",
        "\t}",
        "}",
    )
    entry = parse(edited("boot_menu", *lines)).boot.menu.default_entry
    assert (entry.image if entry else None) == image


def test_boot_menu_with_a_saved_default() -> None:
    text = edited("boot_menu", 'set default="${next_entry}"', 'set default="${saved_entry}"')
    text = text.replace("saved_entry=rtinfra-good", "saved_entry=good")
    assert parse(text).boot.menu == BootMenu((), "good")


def test_login(snapshot: Snapshot) -> None:
    assert snapshot.logins.member is not None
    assert snapshot.logins.member.groups == ("mxrc", "realtime")
    assert snapshot.logins.member.limits["realtime priority"] == "99"
    assert snapshot.logins.member.limits["locked memory"] == "unlimited"
    assert parse(edited("login")).logins.member is None


def test_journal_bounds_are_those_of_the_disk(snapshot: Snapshot) -> None:
    assert snapshot.logs.journal_usage == {"MAX_USE": 2**30, "DISK_KEEP_FREE": 2 * 2**30}


def test_memory_by_node(snapshot: Snapshot) -> None:
    assert snapshot.memory.private.share(1) > 95
    assert snapshot.memory.everything.total_kb > snapshot.memory.private.total_kb
    assert snapshot.memory.policy_share("bind:1") == 100
    assert snapshot.memory.unlocked_kb == 8
    assert parse(edited("numa_maps")).memory.everything.share(1) == 0


def test_http_answers(snapshot: Snapshot) -> None:
    answers = snapshot.answers.at(8080, "/health")
    assert {answer.status for answer in answers} == {200}
    assert all(answer.milliseconds < 500 for answer in answers)
    assert snapshot.answers.metrics(9090)["mxrc_rt_cycle_count_total"] > 0


def test_no_http_answer() -> None:
    snapshot = parse(edited("http", "@http GET http://127.0.0.1:8080/health 0 12 1", ""))
    assert snapshot.answers.at(8080, "/health")[-1].status == 0
    assert snapshot.answers.metrics(9090) == {}


def test_checkpoint(snapshot: Snapshot) -> None:
    checkpoint = snapshot.application.checkpoint
    assert checkpoint is not None
    assert checkpoint.is_intact
    damaged = replace(checkpoint, text=checkpoint.text.replace('"cycles_total": ', '"cycles_total": 1'))
    assert not damaged.is_intact
    assert not replace(checkpoint, text="").is_intact
    assert parse(edited("checkpoints")).application.checkpoint is None


def test_application_files(snapshot: Snapshot) -> None:
    assert snapshot.application.documents["cpu_affinity"]["rt_process"]["cpu_cores"] == [2, 3]
    assert parse(edited("json cpu_affinity", "{")).application.documents["cpu_affinity"] == {}


@pytest.mark.parametrize("section", ["online", "kernel", "cpu_values", "thread_stat", "thread_status", "units", "end"])
def test_a_host_that_says_nothing_is_no_host_without_faults(section: str) -> None:
    with pytest.raises(SnapshotError, match=section):
        parse(edited(section))


def test_script_is_a_valid_shell_script(tmp_path: Path) -> None:
    text = script(asked_of(tmp_path, "rt_hosts, lab"))
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0
    # One argument on a command line may have 128 KiB.
    assert len(text) < 64 * 1024


def test_script_runs_on_any_linux_and_exits_with_0(tmp_path: Path) -> None:
    asked = asked_of(tmp_path, "rt_hosts, lab")
    # Not the application's ports: whoever listens on them on this machine is no concern of a test.
    text = script(replace(asked, application=None, login_user=None))
    result = subprocess.run(["sh", "-c", text], capture_output=True, check=False, timeout=30)
    found = output_sections.parse(result.stdout.decode(errors="replace").split("\n"))
    assert result.returncode == 0
    assert found["end"][0] == "reached"
    assert any(line.endswith(" (sh) R") or "(sh)" in line for line in found["thread_stat"])


def test_questions_of_a_host_that_is_not_real_time(tmp_path: Path) -> None:
    asked = asked_of(tmp_path, "")
    assert asked.application is None
    assert asked.own_services == ()
    assert asked.login_user is None
    assert "exposure" not in script(asked)


def test_paths_behind_settings() -> None:
    assert sysctl_path("vm.stat_interval") == "/proc/sys/vm/stat_interval"
    assert parameter_path("rcutree.kthread_prio=11") == "/sys/module/rcutree/parameters/kthread_prio"
    assert parameter_path("nohz=on") is None
