"""Settings that would harm a host are refused with file and line, and what is proposed instead is accepted."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from roles.catalogue import HOST_MODEL, KNOWN_GROUPS
from roles.fleet import load_checked_hosts
from rtinfra.config import ConfigError, Problem, load_fleet
from rtinfra.config.types import ByteSize, Duration
from rtinfra.paths import PROJECT

# Two that say who a host's telemetry is for, and need a host of another group, are left out.
GROUPS = tuple(group for group in KNOWN_GROUPS if group not in ("all", "lab"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with the shipped settings."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(PROJECT / "group_data", root / "group_data")
    return root


def problems(root: Path, groups: tuple[str, ...], settings: Any, ssh: Mapping[str, Any] | None = None) -> list[Problem]:
    """Return what is said of a host with these settings of its own."""
    entry = {"groups": list(groups), "ssh": {"address": "192.0.2.1", **(ssh or {})}, "settings": settings}
    file = root / "hosts.yaml"
    file.write_text(yaml.safe_dump({"hosts": {"robot-1": entry}}, width=1000))
    try:
        return list(load_fleet(root, file, HOST_MODEL, known_groups=KNOWN_GROUPS).warnings)
    except ConfigError as error:
        return list(error.problems)


def nested(key: str, value: Any) -> Any:
    """Return the mapping that a dotted key stands for; names with dots of their own are in brackets."""
    if not key:
        return value
    match = re.fullmatch(r"(?:\[(?P<quoted>[^]]+)\]|(?P<plain>[^.]+))\.?(?P<rest>.*)", key)
    assert match is not None
    return {match["quoted"] or match["plain"]: nested(match["rest"], value)}


HARMFUL = [
    ("rt_app.state_dir", "/", "others use too"),
    ("rt_app.state_dir", "/var/lib", "others use too"),
    ("rt_app.log_dir", "/etc", "others use too"),
    ("rt_app.log_dir", "/var/log/journal/mxrc", "belongs to the system"),
    ("rt_app.config_dir", "/etc/systemd", "belongs to the system"),
    ("rt_app.state_dir", "/home/pilot", "others use too"),
    ("rt_app.state_dir", "/run/mxrc", "belongs to the system"),
    ("rt_app.state_dir", "/var/%i", "systemd or a shell would read"),
    ("rt_app.state_dir", "/var/$(id)", "systemd or a shell would read"),
    ("rt_app.state_dir", "/etc/mxrc", "is also"),
    ("rt_app.state_dir", "/var/log/mxrc/state", "lies in"),
    ("mirror_server.directory", "/srv", "others use too"),
    ("preflight.state_directory", "/var/lib/dpkg", "belongs to the system"),
    ("base.packages", ["openssh-server-"], "one Debian package"),
    ("base.packages", ["-y"], "one Debian package"),
    ("base.packages", ["a; reboot"], "one Debian package"),
    ("rt_tuning.packages", ["--reinstall"], "one Debian package"),
    ("rt_app.application.packages", ["libnuma1 bash-"], "one Debian package"),
    ("agents.packages", ["x="], "one Debian package"),
    ("backends.packages", ["podman-"], "one Debian package"),
    ("drift.packages", ["python3-"], "one Debian package"),
    ("mirror.base_packages", ["init-"], "one Debian package"),
    ("rt_kernel.sources.[debian-13].packages", ["linux-image-amd64-"], "one Debian package"),
    ("rt_app.rt_process.health_port", 22, "taken by the ssh server"),
    ("rt_app.rt_process.metrics_port", 2222, "taken by the ssh server"),
    ("rt_tuning.kthread_priorities.ksoftirqd", 95, "not below"),
    ("rt_tuning.kthread_priorities.ktimers", 90, "not below"),
    ("rt_tuning.watchdog.module", "iTCO wdt; reboot", "kernel module"),
    ("rt_tuning.watchdog.identity", 'x", RUN+="/bin/sh', "one line"),
    ("base.time.servers", ["192.0.2.1\nallow all"], "line break"),
    ("base.time.servers", ["192.0.2.1 iburst"], "neither an IP address nor a host name"),
    ("rt_app.tracing.service_name", "mxrc\nExecStart=/bin/sh", "line break"),
    ("rt_app.tracing.service_name", 'mx"rc', "one line"),
    ("rt_app.config_dir", "/etc/mx\nrc", "line break"),
    ("rt_app.user", "root", "account of the system"),
    ("rt_app.user", "systemd-network", "account of the system"),
    ("base.realtime_group", "sudo", "account of the system"),
    ("base.realtime_members", ["Ann Other"], "name of an account"),
    ("rt_tuning.watchdog.runtime", "0s", "must be between 1s and 10min"),
    ("rt_tuning.watchdog.runtime", "20000s", "must be between"),
    ("rt_tuning.watchdog.reboot", "0", "must be between"),
    ("rt_app.unit.watchdog", "0", "must be between"),
    ("rt_tuning.sysctl.[vm.swappiness]", 100000, "must be between 0 and 200"),
    ("rt_tuning.sysctl.[vm.swappiness]", "ten", "must be a whole number"),
    ("rt_tuning.sysctl.[kernel.panik]", 10, "is not a kernel setting"),
    ("rt_tuning.sysctl.[kernel/panic]", 10, "is not the name"),
    ("rt_tuning.sysctl.[kernel.sched_rt_runtime_us]", -2, "must be between"),
    ("rt_tuning.governor", "perfomance", "must be one of"),
    ("rt_kernel.parameters", ["init=/bin/sh"], "decides what starts"),
    ("rt_kernel.parameters", ["rdinit=/bin/sh"], "decides what starts"),
    ("rt_kernel.parameters", ["systemd.unit=rescue.target"], "decides what starts"),
    ("rt_kernel.parameters", ["root=/dev/sdb1"], "says where the system is"),
    ("rt_kernel.parameters", ["maxcpus=1"], "takes cores"),
    ("rt_kernel.parameters", ["skew_tik=1"], "not a parameter"),
    ("rt_kernel.parameters", ["nmi-watchdg=0"], "not a parameter"),
    ("rt_kernel.parameters", ["nohz-full=1-3"], "derived from cpu.isolated"),
    ("rt_kernel.parameters", ["skew_tick=1", "skew-tick=0"], "given twice"),
    ("rt_kernel.parameters", ["rcutree.kthread_prio=95"], "not below"),
    ("rt_app.reference.metrics_bind", "999.0.0.1", "not an IP address"),
    ("prometheus.retention", 7, "must be between 1h and 3650d"),
    ("prometheus.retention", 0, "must be between"),
    ("prometheus.retention", "999999999d", "must be between"),
    ("jaeger.retention", "0s", "must be between"),
    ("telemetry.tenants.prod.logs_retention", "7", "must be between"),
    ("prometheus.scrape_interval", "0s", "must be between"),
    ("preflight.interval", "0", "must be between"),
    ("prometheus.memory_max", 0, "must be between"),
    ("agents.slice.memory_max", "512", "must be between"),
    ("base.journal.max_use", "0", "must be between"),
    ("prometheus.cpu_quota", 200, "must be a share"),
    ("prometheus.cpu_quota", "0%", "must be a share"),
    ("backends.memory_max", "120%", "must be a share"),
    ("telemetry.address", "a b", "neither an IP address nor a host name"),
]


@pytest.mark.parametrize(("key", "value", "reason"), HARMFUL)
def test_it_is_refused_where_it_stands_and_the_proposal_holds(root: Path, key: str, value: Any, reason: str) -> None:
    plain = key.replace("[", "").replace("]", "")
    group = {"base": (), "drift": (), "backends": (), "mirror": (), "telemetry": ()}.get(key.partition(".")[0])
    groups = group if group is not None else (_group_of(key),)
    ssh = {"port": 2222}
    found = [one for one in problems(root, groups, nested(key, value), ssh) if one.severity == "error"]
    about = [one for one in found if one.key.startswith(plain) and reason in one.reason]
    assert len(found) == len(about) == 1, "\n".join(map(str, found))
    assert about[0].file == "hosts.yaml" and about[0].line is not None and about[0].line > 1
    if (proposal := _proposed(about[0].suggestion, value)) is not None:
        left = [one for one in problems(root, groups, nested(key, proposal), ssh) if one.severity == "error"]
        assert not left, f"{about[0].suggestion}: {left}"


def _group_of(key: str) -> str:
    section = key.partition(".")[0]
    return "rt_hosts" if section in ("rt_app", "rt_tuning", "rt_kernel") else section


def _proposed(suggestion: str | None, value: Any) -> Any:
    """Return the value that a suggestion names; None when it names none."""
    if suggestion is None:
        return None
    match = re.fullmatch(r'(?:use|write|did you mean) (?:for example )?"?([^"]*?)"?( for .*|\?)?', suggestion)
    if match is None or match[1].startswith(("kernel.", "vm.")):
        return None
    proposal: Any = int(match[1]) if isinstance(value, int) and match[1].isdigit() else match[1]
    return [proposal] if isinstance(value, list) else proposal


def test_what_is_not_known_is_said_and_not_refused(root: Path) -> None:
    settings = {"rt_tuning": {"sysctl": {"kernel.brand_new_thing_of_ours": 1, "net.core.busy_poll": 50}}}
    found = problems(root, ("rt_hosts",), settings)
    assert [(one.key, one.severity) for one in found] == [
        ("rt_tuning.sysctl.kernel.brand_new_thing_of_ours", "warning")
    ]


@pytest.mark.parametrize("address", ("192.0.2.7", "robot-1.example.com"))
def test_the_group_of_lab_machines_is_for_no_other_host(tmp_path: Path, address: str) -> None:
    """It makes the workload hang when asked, and names a watchdog that only an emulated computer has."""
    shutil.copytree(PROJECT / "group_data", tmp_path / "group_data")
    file = tmp_path / "hosts.yaml"
    file.write_text(f"hosts:\n  robot-1:\n    groups: [rt_hosts, lab]\n    ssh: {{address: {address}}}\n")
    with pytest.raises(ConfigError) as refused:
        load_checked_hosts(tmp_path, file)
    assert [(one.file, one.line, one.value) for one in refused.value.problems] == [("hosts.yaml", 3, "lab")]
    file.write_text(file.read_text().replace(address, "127.0.0.1"))
    assert load_checked_hosts(tmp_path, file).hosts


# ---- the kinds, through the whole model


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        for below in _models(field.annotation):
            yield from _fields(below, f"{prefix}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    if get_origin(annotation) is not None:
        for part in get_args(annotation):
            yield from _models(part)


def test_every_time_and_size_has_bounds() -> None:
    bare = [
        key for key, field in _fields(HOST_MODEL) if field.annotation in (Duration, ByteSize) and not field.metadata
    ]
    assert not bare


def test_every_list_of_packages_is_one_of_package_names(root: Path) -> None:
    listed = [key for key, _ in _fields(HOST_MODEL) if key.endswith(("packages", "boot_loaders"))]
    assert len(listed) >= 10
    for key in listed:
        if key.startswith("rt_kernel.sources"):
            continue  # below the name of a distribution; above
        section = key.partition(".")[0]
        groups = () if section in ("base", "drift", "backends", "mirror") else (_group_of(key),)
        found = problems(root, groups, nested(key, ["bash-"]))
        assert any(one.key.startswith(key) and "one Debian package" in one.reason for one in found), key


def test_no_text_anywhere_may_have_a_line_break(root: Path) -> None:
    """In whatever file of the host it would end, it would begin another line."""
    texts = [(section, key) for section, shipped in _shipped(root).items() for key, value in _texts(shipped)]
    assert len(texts) > 100
    for group in sorted({group for group, _ in texts}):
        keys = [key for each, key in texts if each == group]
        settings: dict[str, Any] = {}
        for key in keys:
            _put(settings, key, "one\ntwo")
        found = problems(root, () if group == "all" else (group,), settings)
        refused = {one.key for one in found if "line break" in one.reason}
        assert refused == set(keys), set(keys) - refused


def _shipped(root: Path) -> dict[str, Any]:
    return {
        path.stem: yaml.safe_load(path.read_text())
        for path in sorted((root / "group_data").glob("*.yaml"))
        if not path.stem.startswith("lab")
    }


def _texts(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            if "." not in key:
                yield from _texts(value, f"{prefix}{key}.")
    elif isinstance(tree, str):
        yield prefix.removesuffix("."), tree


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *above, last = key.split(".")
    for part in above:
        tree = tree.setdefault(part, {})
    tree[last] = value
