"""The snapshot: what a real host answered, and answers that must not pass for "all is well"."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from roles.base.model import BASE
from roles.fleet import load_hosts
from roles.host import HostConfig
from rtinfra.facts import sections
from rtinfra.paths import PROJECT
from rtinfra.verify import probe
from rtinfra.verify.snapshot import BootMenu, Snapshot, SnapshotError, parse

# Recorded on a lab machine and shortened. NUL, which grep puts after file names, is written as a visible sign.
SAMPLE = (Path(__file__).parent / "test_verify_sample.txt").read_text(encoding="utf-8").replace("␀", "\0")


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return parse(SAMPLE)


@pytest.fixture
def config(tmp_path: Path) -> HostConfig:
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text("hosts: {robot: {groups: [rt_hosts, lab], ssh: {address: 192.0.2.1}}}\n")
    return load_hosts(PROJECT, inventory).hosts["robot"].config


def edited(section: str, *lines: str) -> str:
    """The sample with one section replaced."""
    found = sections.parse(SAMPLE.split("\n")) | {section: list(lines)}
    return "\n".join(line for name, content in found.items() for line in (f"@@{name}", *content))


def test_kernel(snapshot: Snapshot) -> None:
    assert snapshot.release == "6.12.117+deb13-rt-amd64"
    assert "PREEMPT_RT" in snapshot.kernel_version
    assert snapshot.kernel_config == "CONFIG_PREEMPT_RT=y"
    assert "nohz_full=2-3" in snapshot.command_line
    assert snapshot.kernel_log_is_complete
    assert snapshot.kernel_log == ()


def test_circumstances(snapshot: Snapshot) -> None:
    assert snapshot.virtualisation == "qemu"
    assert snapshot.is_virtual
    assert "QEMU" in snapshot.machine
    assert snapshot.state.topology.nodes == {0: {0, 1}, 1: {2, 3}}


def test_lists_and_masks_are_read_as_sets(snapshot: Snapshot) -> None:
    assert snapshot.cpus("/sys/devices/system/cpu/isolated") == {2, 3}
    assert snapshot.mask("/proc/irq/default_smp_affinity") == {0, 1}
    assert snapshot.cpus("/sys/absent") == snapshot.mask("/sys/absent") == frozenset()


def test_nohz_full_of_a_kernel_that_was_not_told() -> None:
    text = SAMPLE.replace("nohz_full\x002-3", "nohz_full\0(null)")
    assert parse(text).cpus("/sys/devices/system/cpu/nohz_full") == frozenset()


def test_the_loop_thread(snapshot: Snapshot) -> None:
    loop = next(task for task in snapshot.tasks if task.name == "cycle-loop")
    assert (loop.policy, loop.priority, loop.cpus) == (1, 90, {2})
    assert not loop.is_kernel
    assert loop.locked_kb > 0
    assert loop in snapshot.tasks_of("mxrc-rt.service")
    assert loop not in snapshot.tasks_of("mxrc-non-rt.service")


def test_kernel_threads_are_told_from_programs(snapshot: Snapshot) -> None:
    assert {task.priority for task in snapshot.kernel_threads(r"ksoftirqd/\d+")} == {2}
    assert {task.cpus for task in snapshot.kernel_threads(r"rcuog/\d+")} == {frozenset({0, 1})}
    assert not snapshot.kernel_threads("systemd")


def test_a_thread_name_with_parentheses_and_blanks() -> None:
    stat = "/proc/7/task/7/stat\x007 (a) (b c) S " + " ".join(["0"] * 36 + ["50", "2"])
    status = "/proc/7/task/7/status\0Cpus_allowed_list:\t0-1"
    found = sections.parse(SAMPLE.split("\n"))
    text = edited("thread_stat", stat, *found["thread_stat"])
    text = text.replace("@@thread_status", f"@@thread_status\n{status}")
    task = next(task for task in parse(text).tasks if task.tid == 7)
    assert (task.name, task.policy) == ("a) (b c", 2)


def test_interrupts(snapshot: Snapshot) -> None:
    by_number = {irq.number: irq for irq in snapshot.interrupts}
    assert by_number[4].users == "ttyS0"
    assert by_number[4].requested == {0, 1}
    assert by_number[4].is_movable
    # The queues of the disk are placed by the kernel: number 25 belongs to core 2 and cannot be moved.
    assert not by_number[25].is_movable
    assert by_number[25].requested == {2}
    assert sum(by_number[32].arrivals.values()) > 0


def test_units(snapshot: Snapshot) -> None:
    unit = snapshot.unit("mxrc-rt.service")
    assert (unit["Type"], unit["WatchdogUSec"], unit["NUMAPolicy"]) == ("notify", "10s", "bind")
    assert snapshot.unit("unheard-of.service") == {}
    assert snapshot.manager["RuntimeWatchdogUSec"] == "20s"
    assert snapshot.failed_units == ()
    assert snapshot.exposure["mxrc-rt.service"] < 3


def test_watchdogs_by_identity(snapshot: Snapshot) -> None:
    assert {(dog.identity, dog.state) for dog in snapshot.watchdogs} >= {("i6300ESB timer", "active")}


def test_boot_menu(snapshot: Snapshot) -> None:
    entry = snapshot.boot_menu.default_entry
    assert entry is not None
    assert entry.image == f"/boot/vmlinuz-{snapshot.release}"
    assert "isolcpus=managed_irq,domain,2-3" in entry.words


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
    entry = parse(edited("boot_menu", *lines)).boot_menu.default_entry
    assert (entry.image if entry else None) == image


def test_boot_menu_with_a_saved_default() -> None:
    text = edited("boot_menu", 'set default="${next_entry}"', 'set default="${saved_entry}"')
    text = text.replace("@@grubenv", "@@grubenv\nsaved_entry=good")
    assert parse(text).boot_menu == BootMenu((), "good")


def test_login(snapshot: Snapshot) -> None:
    assert snapshot.login is not None
    assert snapshot.login.groups == ("mxrc", "realtime")
    assert snapshot.login.limits["realtime priority"] == "99"
    assert snapshot.login.limits["locked memory"] == "unlimited"
    assert parse(edited("login")).login is None


def test_journal_bounds_are_those_of_the_disk(snapshot: Snapshot) -> None:
    assert snapshot.journal_usage == {"MAX_USE": 2**30, "DISK_KEEP_FREE": 2 * 2**30}


def test_memory_by_node(snapshot: Snapshot) -> None:
    assert snapshot.private_memory.share(1) > 95
    assert snapshot.memory.total_kb > snapshot.private_memory.total_kb
    assert parse(edited("numa_maps")).memory.share(1) == 0


def test_http_answers(snapshot: Snapshot) -> None:
    answers = snapshot.answers(8080, "/health")
    assert {answer.status for answer in answers} == {200}
    assert all(answer.milliseconds < 500 for answer in answers)
    assert snapshot.metrics(9090)["mxrc_rt_cycle_count_total"] > 0


def test_no_http_answer() -> None:
    snapshot = parse(edited("http", "@http GET http://127.0.0.1:8080/health 0 12", ""))
    assert snapshot.answers(8080, "/health")[-1].status == 0
    assert snapshot.metrics(9090) == {}


def test_checkpoint(snapshot: Snapshot) -> None:
    checkpoint = snapshot.checkpoint
    assert checkpoint is not None
    assert checkpoint.is_intact
    damaged = replace(checkpoint, text=checkpoint.text.replace('"cycles_total": ', '"cycles_total": 1'))
    assert not damaged.is_intact
    assert not replace(checkpoint, text="").is_intact
    assert parse(edited("checkpoints")).checkpoint is None


def test_application_files(snapshot: Snapshot) -> None:
    assert snapshot.documents["cpu_affinity"]["rt_process"]["cpu_cores"] == [2, 3]
    assert parse(edited("json cpu_affinity", "{")).documents["cpu_affinity"] == {}


@pytest.mark.parametrize("section", ["online", "kernel", "values", "thread_stat", "thread_status", "units", "end"])
def test_a_host_that_says_nothing_is_no_host_without_faults(section: str) -> None:
    with pytest.raises(SnapshotError, match=section):
        parse(edited(section))


def test_script_is_a_valid_shell_script(config: HostConfig) -> None:
    script = probe.script(probe.questions(config))
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
    # One argument on a command line may have 128 KiB.
    assert len(script) < 64 * 1024


def test_script_runs_on_any_linux_and_exits_with_0(config: HostConfig) -> None:
    asked = probe.questions(config)
    # Not the application's ports: whoever listens on them on this machine is no concern of a test.
    script = probe.script(replace(asked, application=None, login_user=None))
    result = subprocess.run(["sh", "-c", script], capture_output=True, check=False, timeout=30)
    found = sections.parse(result.stdout.decode(errors="replace").split("\n"))
    assert result.returncode == 0
    assert found["end"][0] == "reached"
    assert any(line.endswith(" (sh) R") or "(sh)" in line for line in found["thread_stat"])


def test_questions_of_a_host_that_is_not_real_time(config: HostConfig) -> None:
    base_only = HostConfig.model_construct(**{**dict.fromkeys(HostConfig.model_fields), "base": config[BASE]})
    asked = probe.questions(base_only)
    assert asked.application is None
    assert asked.own_services == ()
    assert asked.login_user is None
    assert "exposure" not in probe.script(asked)


def test_paths_behind_settings() -> None:
    assert probe.sysctl_path("vm.stat_interval") == "/proc/sys/vm/stat_interval"
    assert probe.parameter_path("rcutree.kthread_prio=11") == "/sys/module/rcutree/parameters/kthread_prio"
    assert probe.parameter_path("nohz=on") is None
