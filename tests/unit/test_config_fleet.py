"""From YAML files to typed hosts, and every mistake with file, line and a suggestion."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from rtinfra.config import (
    ConfigError,
    CrossCheckError,
    Finding,
    Fleet,
    Problem,
    SshSettings,
    load_fleet,
    report_findings,
)
from rtinfra.config.types import CpuListText, Distribution, Duration, Port, RtPriority, Settings
from rtinfra.cpu import Topology, resolve_layout


class Level(Enum):
    LOW = "low"
    HIGH = "high"


class Source(Settings):
    packages: tuple[str, ...] = Field(description="Debian packages")
    weight: int = Field(multiple_of=5, examples=[10])
    suite: str | None = None


class Cpu(Settings):
    isolated: CpuListText = "2-3"
    housekeeping: CpuListText | None = None


class App(Settings):
    priority: RtPriority = 90
    share: float = Field(default=0.5, gt=0, le=1)
    cycles: int = Field(default=10, gt=0)
    factor: int = Field(default=2, multiple_of=2)
    level: Level = Level.LOW
    kind: Literal["binary", "deb"] = "deb"
    fixed: Literal["W3C"] = "W3C"
    enabled: bool = True
    name: str = Field(default="app", pattern="^[a-z]+$", max_length=8)
    ports: tuple[Annotated[Port, Field(lt=9000)], ...] = ()
    watchdog: Duration = Duration.parse("10s")
    either: int | tuple[int, ...] = 1
    binary: str | None = Field(description="a local file")
    password: SecretStr | None = None
    hidden: SecretStr | None = None

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if value == "root":
            raise PydanticCustomError("taken", "is taken by the system")
        if value == "bad":
            raise ValueError("is a bad name")
        return value

    @field_validator("hidden")
    @classmethod
    def _hidden(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 20:
            raise ValueError(f"{value.get_secret_value()} is too short")
        return value

    @model_validator(mode="after")
    def _ports_differ(self) -> App:
        if len(set(self.ports)) < len(self.ports):
            raise CrossCheckError([Finding("ports.1", self.ports[1], "is given twice", "use 8081")])
        return self


class HostModel(Settings):
    cpu: Cpu = Cpu()
    app: App
    sysctl: dict[str, int | str] = Field(default_factory=dict)
    sources: dict[Distribution, Source] = Field(default_factory=dict)
    extra: App | None = None

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> HostModel:
        context = info.context or {}
        assert isinstance(context["root"], Path)
        findings = []
        if "strict" in context["groups"] and self.app.priority < 50:
            findings.append(Finding("app.priority", self.app.priority, f"is low for {context['host']}", "use 90"))
        if self.sysctl.get("kernel.panic") == 0:
            findings.append(Finding("sysctl.kernel.panic", 0, "never reboots", severity="warning"))
        report_findings(findings, context)
        return self


ALL = """\
app:
  binary: null
sysctl:
  vm.swappiness: 10
  kernel.panic: 20
"""
ENTRY = """\
hosts:
  rt1:
    groups: [rt]
    ssh: {address: 192.0.2.10}
"""


class Project:
    """A project folder in a temporary directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("group_data/all.yaml", ALL)
        self.write("group_data/rt.yaml", "")
        self.write("inventory/hosts.yaml", ENTRY)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def load(self, inventory: str = "inventory") -> Fleet[HostModel]:
        return load_fleet(self.root, self.root / inventory, HostModel, known_groups=("all", "lab"))

    def problems(self, inventory: str = "inventory") -> list[Problem]:
        with pytest.raises(ConfigError) as caught:
            self.load(inventory)
        return list(caught.value.problems)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# --- what works


def test_layers_are_merged_all_group_host(project: Project) -> None:
    project.write("group_data/rt.yaml", "app: {priority: 70, name: group}\n")
    project.write("group_data/second.yaml", "app: {name: second}\nsysctl: {vm.swappiness: 1}\n")
    project.write(
        "inventory/hosts.yaml",
        ENTRY.replace("[rt]", "[rt, second]") + "    settings:\n      app: {share: 0.25}\n",
    )
    host = project.load().hosts["rt1"]
    assert (host.config.app.priority, host.config.app.name, host.config.app.share) == (70, "second", 0.25)
    assert host.config.sysctl == {"vm.swappiness": 1, "kernel.panic": 20}
    assert host.source == "inventory/hosts.yaml:2"
    assert host.locate("app.priority") == ("group_data/rt.yaml", 1)
    assert host.locate("app.name") == ("group_data/second.yaml", 1)
    assert host.locate("sysctl.kernel.panic") == ("group_data/all.yaml", 5)
    assert host.locate("app.share") == ("inventory/hosts.yaml", 6)
    assert host.locate("hosts.rt1.ssh.address") == ("inventory/hosts.yaml", 4)
    assert host.locate("cpu.isolated") == ("inventory/hosts.yaml", 5), "defaults: where the host's settings are"


def test_groups_of_a_fleet(project: Project) -> None:
    project.write("inventory/more.yaml", "hosts: {rt2: {groups: [rt, lab], ssh: {address: a.example, port: 2222}}}\n")
    fleet = project.load()
    assert list(fleet.hosts) == ["rt1", "rt2"]
    assert [host.name for host in fleet.group("lab")] == ["rt2"]
    assert [host.name for host in fleet.group("all")] == ["rt1", "rt2"]
    assert fleet.group("none") == ()


def test_a_single_file_is_an_inventory_too(project: Project) -> None:
    project.write("lab.yaml", ENTRY.replace("rt1", "lab1"))
    assert list(project.load("lab.yaml").hosts) == ["lab1"]


def test_null_resets_to_the_default(project: Project) -> None:
    project.write("group_data/rt.yaml", "app: {priority: 70, watchdog: 1min}\nsysctl: {vm.swappiness: 1}\n")
    project.write(
        "inventory/hosts.yaml",
        ENTRY + "    settings: {app: {priority: null}, cpu: null, sysctl: {vm.swappiness: null}}\n",
    )
    config = project.load().hosts["rt1"].config
    assert config.app.priority == 90
    assert str(config.app.watchdog) == "1min"
    assert config.sysctl == {"kernel.panic": 20}, "null takes a key out of a mapping of free keys"
    assert config.app.binary is None, "null is a value where there is no default to return to"


def test_cpu_lists_that_yaml_reads_as_something_else(project: Project) -> None:
    for written, text in (("2", "2"), ("[2, 3]", "2,3"), ("2-N", "2-N"), ("2,3", "2,3")):
        project.write("group_data/rt.yaml", f"cpu:\n  isolated: {written}\n")
        assert project.load().hosts["rt1"].config.cpu.isolated == text


def test_switches_may_be_words(project: Project) -> None:
    for written, value in (("on", True), ("off", False), ("yes", True), ("false", False)):
        project.write("group_data/rt.yaml", f"app: {{enabled: {written}}}\n")
        assert project.load().hosts["rt1"].config.app.enabled is value


def test_warnings_do_not_refuse(project: Project) -> None:
    project.write("group_data/rt.yaml", "sysctl:\n  kernel.panic: 0\n")
    (warning,) = project.load().warnings
    assert str(warning) == "group_data/rt.yaml:2: warning: sysctl.kernel.panic = 0: never reboots. (host rt1)"


def test_ssh_settings(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/kim")
    project.write(
        "inventory/hosts.yaml",
        "hosts: {rt1: {ssh: {address: '2001:DB8::1', port: 2222, user: ops, become: true, key: ~/.ssh/id, "
        "known_hosts: k}}}",
    )
    assert project.load().hosts["rt1"].ssh.connector_data() == {
        "ssh_hostname": "2001:db8::1",
        "ssh_port": 2222,
        "ssh_user": "ops",
        "ssh_strict_host_key_checking": "yes",
        "ssh_key": "/home/kim/.ssh/id",
        "ssh_known_hosts_file": str(project.root / "k"),
    }
    assert "ssh_key" not in SshSettings(address="a").connector_data()


@pytest.mark.parametrize(
    ("ssh", "key", "suggestion"),
    (
        ("user: ops", "become", "write become: true"),
        ("user: root, become: true", "become", "name that user, or remove `become`"),
        ("become_password: ops_sudo", "become_password", "remove it"),
        ("user: ops, become: true, become_password: Ann's", "become_password", None),
    ),
)
def test_who_is_not_root_becomes_root(project: Project, ssh: str, key: str, suggestion: str | None) -> None:
    project.write("inventory/hosts.yaml", f"hosts:\n  rt1:\n    ssh: {{address: a, {ssh}}}\n")
    with pytest.raises(ConfigError) as refused:
        project.load()
    (problem,) = refused.value.problems
    assert (problem.file, problem.line, problem.key) == ("inventory/hosts.yaml", 3, f"hosts.rt1.ssh.{key}")
    assert suggestion is None or problem.suggestion == suggestion


def test_what_the_live_host_contradicts_is_cited(project: Project) -> None:
    project.write("group_data/rt.yaml", "cpu:\n\n  isolated: 4-N\n")
    host = project.load().hosts["rt1"]
    _, (finding,) = resolve_layout(host.config.cpu.isolated, None, Topology.flat(4))
    assert str(host.cite(finding)) == (
        'group_data/rt.yaml:3: cpu.isolated = "4-N": 4-N is empty on a host whose last CPU is 3 (N = 3). '
        "Suggestion: did you mean 2-3 or 3? (host rt1)"
    )
    assert host.problem("cpu.housekeeping", None, "x").line == 1


# --- what the models refuse


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("priority: 120", "app.priority = 120: must be between 1 and 99. Suggestion: use 90."),
        ("priority: true", "app.priority = true: must be a whole number, not true or false."),
        ("share: 2", "app.share = 2: must be more than 0 and at most 1. Suggestion: use 1."),
        ("cycles: 0", "app.cycles = 0: must be more than 0. Suggestion: use 1 or more."),
        ("cycles: 10s", 'app.cycles = "10s": must be a whole number. Suggestion: use 10, the default.'),
        ("cycles: 1.5", "app.cycles = 1.5: must be a whole number. Suggestion: use 10, the default."),
        ("factor: 3", "app.factor = 3: must be a multiple of 2. Suggestion: use 2, the default."),
        ("level: hig", 'app.level = "hig": must be one of low, high. Suggestion: did you mean high?'),
        ("kind: rpm", 'app.kind = "rpm": must be one of binary, deb. Suggestion: use one of binary, deb.'),
        ("kind: BINARY", "Suggestion: did you mean binary?"),
        ("fixed: B3", 'app.fixed = "B3": must be W3C. Suggestion: use W3C.'),
        (
            "enabled: maybe",
            'app.enabled = "maybe": must be true or false. Suggestion: use true, the default.',
        ),
        ("name: 5", 'app.name = 5: must be text. Suggestion: put it in quotes: "5".'),
        (
            "name: A",
            'app.name = "A": does not have the expected form ^[a-z]+$. Suggestion: use app, the default.',
        ),
        ("name: abcdefghi", "should have at most 8 characters"),
        ("name: root", 'app.name = "root": is taken by the system.'),
        ("name: bad", 'app.name = "bad": is a bad name.'),
        ("ports: 80", "app.ports = 80: must be a list. Suggestion: write [80]."),
        ("ports: [80, 70000]", "app.ports.1 = 70000: "),
        ("ports: [80, 80]", "app.ports.1 = 80: is given twice. Suggestion: use 8081."),
        ("watchdog: 1:30", 'app.watchdog = "1:30": is not a time span such as "10s", "1min 30s" or "500ms".'),
        ("either: x", 'app.either = "x": must be a whole number or a list.'),
        ("either: [x]", 'app.either.0 = "x": must be a whole number.'),
        ("priorty: 1", "app.priorty: is not a known key. Suggestion: did you mean priority?"),
        ("zzz: 1", "app.zzz: is not a known key. Suggestion: the keys known here are priority, share,"),
        ("zzz: null", "app.zzz: is not a known key."),
    ],
)
def test_values_are_refused_in_plain_words(project: Project, written: str, text: str) -> None:
    project.write("group_data/rt.yaml", f"# comment\napp:\n  {written}\n")
    texts = [str(problem) for problem in project.problems()]
    assert any(text in line and line.startswith("group_data/rt.yaml:3: ") for line in texts), texts
    assert len(texts) == 1 or "either" in written


@pytest.mark.parametrize("written", ["app: 5", "app: [1]", "app: x"])
def test_a_value_where_a_section_is_expected(project: Project, written: str) -> None:
    project.write("group_data/rt.yaml", f"{written}\n")
    (problem,) = project.problems()
    assert problem.reason == "must be a section with keys of its own"


def test_missing_keys_are_reported_at_their_parent(project: Project) -> None:
    project.write("group_data/rt.yaml", "sysctl: {}\nsources:\n  debian-13:\n    suite: x\n")
    assert [str(problem) for problem in project.problems()] == [
        f"group_data/rt.yaml:3: sources.debian-13.{text} (host rt1)"
        for text in (
            "packages: is required. Suggestion: add packages (Debian packages).",
            "weight: is required. Suggestion: add weight: 10.",
        )
    ]
    project.write("group_data/all.yaml", "")
    project.write("group_data/rt.yaml", "")
    (problem,) = project.problems()
    assert (problem.file, problem.line, problem.key) == ("inventory/hosts.yaml", 2, "app")


def test_keys_of_free_mappings_are_checked_too(project: Project) -> None:
    project.write("group_data/rt.yaml", "sources:\n  debian13: {packages: [], weight: 3}\n")
    assert [str(problem) for problem in project.problems()] == [
        'group_data/rt.yaml:2: sources.debian13 = "debian13": must be a distribution with its version. '
        "Suggestion: write for example debian-13. (host rt1)",
        "group_data/rt.yaml:2: sources.debian13.weight = 3: must be a multiple of 5. Suggestion: use 10. (host rt1)",
    ]


def test_null_where_a_value_is_needed(project: Project) -> None:
    project.write("group_data/rt.yaml", "sources:\n  debian-13:\n    packages: null\n    weight: 5\n")
    (problem,) = project.problems()
    assert problem.reason == "needs a value; it is empty or null here"
    assert problem.line == 3


def test_unknown_keys_at_the_top_and_in_optional_sections(project: Project) -> None:
    project.write("group_data/rt.yaml", "cpus: {}\nextra: {binary: x, enabld: 1}\n")
    assert [(problem.key, problem.suggestion) for problem in project.problems()] == [
        ("cpus", "did you mean cpu?"),
        ("extra.enabld", "did you mean enabled?"),
    ]


def test_cross_checks_cite_the_key_they_point_at(project: Project) -> None:
    project.write("group_data/strict.yaml", "")
    project.write("group_data/rt.yaml", "app:\n  priority: 5\nsysctl:\n  kernel.panic: 0\n")
    project.write("inventory/hosts.yaml", ENTRY.replace("[rt]", "[rt, strict]"))
    assert [str(problem) for problem in project.problems()] == [
        "group_data/rt.yaml:2: app.priority = 5: is low for rt1. Suggestion: use 90. (host rt1)",
        "group_data/rt.yaml:4: warning: sysctl.kernel.panic = 0: never reboots. (host rt1)",
    ]


@pytest.mark.parametrize(
    "written",
    ["password: [hunter2]", "hidden: hunter2", "hidden: [hunter2]", "pasword: hunter2", "db_token: hunter2"],
)
def test_secrets_are_not_shown(project: Project, written: str) -> None:
    project.write("group_data/rt.yaml", f"app:\n  {written}\n")
    for problem in project.problems():
        assert "hunter2" not in str(problem) + repr(problem) + str(problem.to_json())


def test_one_mistake_in_a_group_is_one_problem(project: Project) -> None:
    project.write("group_data/rt.yaml", "app: {priority: 0}\n")
    project.write("inventory/more.yaml", ENTRY.replace("rt1", "rt2").replace(".10", ".11"))
    (problem,) = project.problems()
    assert problem.hosts == ("rt1", "rt2")


# --- what inventory and files get wrong


def test_all_problems_of_all_files_come_at_once(project: Project) -> None:
    project.write("group_data/all.yaml", ALL + "app: {}\n")
    project.write("group_data/rt.yaml", "a: b: c\n")
    project.write("inventory/bad.yaml", "hosts:\n  x_y: {ssh: {address: 1.2.3}}\n")
    assert [(problem.file, problem.line) for problem in project.problems()] == [
        ("group_data/all.yaml", 6),
        ("group_data/rt.yaml", 1),
        ("inventory/bad.yaml", 2),
        ("inventory/bad.yaml", 2),
    ]


@pytest.mark.parametrize(
    ("entry", "key", "words"),
    [
        ("rt_2: {ssh: {address: a}}", "hosts.rt_2", r"not a host name.*did you mean rt-2\?"),
        ('"@local": {ssh: {address: a}}', "hosts.@local", r"not a host name.*did you mean local\?"),
        ('"-": {ssh: {address: a}}', "hosts.-", "not a host name"),
        ("rt1: {ssh: {address: a}}", "hosts.rt1", "already defined in inventory/hosts.yaml:2"),
        ("rt2: {}", "hosts.rt2.ssh", "is required"),
        ("rt2: 5", "hosts.rt2", "must be a section"),
        ("rt2: {ssh: {}}", "hosts.rt2.ssh.address", "is required.*IP address or host name"),
        ("rt2: {ssh: {address: 192.0.2.10}}", "hosts.rt2.ssh.address", "rt1 .* same address and port 22"),
        ("rt2: {ssh: {address: 192.0.2.300}}", "hosts.rt2.ssh.address", "neither an IP address"),
        ("rt2: {ssh: {address: bob@a}}", "hosts.rt2.ssh.address", "write a and user: bob"),
        ("rt2: {ssh: {address: a, port: 0}}", "hosts.rt2.ssh.port", "between 1 and 65535"),
        ("rt2: {ssh: {address: a, user: 'a b'}}", "hosts.rt2.ssh.user", "expected form"),
        ("rt2: {ssh: {address: a, key: ~nobody-here/x}}", "hosts.rt2.ssh.key", "unknown user"),
        ("rt2: {ssh: {address: a, strict: no}}", "hosts.rt2.ssh.strict", "not a known key"),
        ("rt2: {ssh: {address: a}, groups: rt}", "hosts.rt2.groups", r"must be a list.*write \[rt\]"),
        (
            "rt2: {ssh: {address: a}, groups: [rtt]}",
            "hosts.rt2.groups",
            r"not a known group.*did you mean rt\?",
        ),
        ("rt2: {ssh: {address: a}, groups: [x]}", "hosts.rt2.groups", "the groups are lab, rt"),
        ("rt2: {ssh: {address: a}, groups: [all]}", "hosts.rt2.groups", "remove it"),
        ("rt2: {ssh: {address: a}, settings: 5}", "hosts.rt2.settings", "must be a section"),
        ("rt2: {ssh: {address: a}, setings: {}}", "hosts.rt2.setings", r"did you mean settings\?"),
    ],
)
def test_inventory_mistakes(project: Project, entry: str, key: str, words: str) -> None:
    project.write("inventory/more.yaml", f"hosts:\n\n  {entry}\n")
    (problem,) = project.problems()
    assert (problem.file, problem.line, problem.key) == ("inventory/more.yaml", 3, key)
    assert re.search(words, str(problem)), str(problem)


def test_without_any_group_there_is_nothing_to_suggest(project: Project) -> None:
    (project.root / "group_data/rt.yaml").unlink()
    with pytest.raises(ConfigError) as caught:
        load_fleet(project.root, project.root / "inventory", HostModel)
    assert [problem.suggestion for problem in caught.value.problems] == [None]


def test_settings_are_checked_even_when_ssh_is_wrong(project: Project) -> None:
    project.write(
        "inventory/hosts.yaml",
        "hosts:\n  rt1:\n    groups: [rt]\n    ssh: {}\n    settings: {app: {name: 5}}\n",
    )
    project.write("group_data/rt.yaml", "app: {priority: 0}\n")
    assert [problem.key for problem in project.problems()] == [
        "app.priority",
        "hosts.rt1.ssh.address",
        "app.name",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("host: {}\n", r"host: is not a known key. Suggestion: did you mean hosts\?"),
        ("hosts: [rt1]\n", "hosts: must be a section|hosts = .*must be a section"),
        ("hosts:\n", "there are no hosts. Suggestion: add one below `hosts:` in inventory"),
        ("", "there are no hosts"),
    ],
)
def test_inventories_without_hosts(project: Project, text: str, words: str) -> None:
    project.write("inventory/hosts.yaml", text)
    (problem,) = project.problems()
    assert re.search(words, str(problem)), str(problem)


def test_an_empty_inventory_directory_says_what_to_create(project: Project) -> None:
    (project.root / "inventory/hosts.yaml").rename(project.root / "inventory/hosts.example.yaml")
    (problem,) = project.problems()
    assert problem.suggestion == "copy inventory/hosts.example.yaml to inventory/hosts.yaml and edit it"
    (project.root / "inventory/hosts.example.yaml").unlink()
    (problem,) = project.problems()
    assert problem.suggestion == "create inventory/hosts.yaml"


def test_a_missing_inventory_is_a_problem(project: Project) -> None:
    (problem,) = project.problems("nowhere.yaml")
    assert str(problem) == "nowhere.yaml: cannot be read: no such file or directory. Suggestion: create it."


def test_files_with_the_other_ending_are_not_silently_ignored(project: Project) -> None:
    project.write("group_data/rt2.yml", "")
    project.write("inventory/more.yml", "")
    assert [problem.suggestion for problem in project.problems()] == [
        "rename it to rt2.yaml",
        "rename it to more.yaml",
    ]


def test_files_outside_the_project_keep_their_path(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "hosts.yaml"
    outside.write_text("hosts: 5\n")
    with pytest.raises(ConfigError, match=re.escape(f"{outside}:1: hosts")):
        load_fleet(project.root, outside, HostModel)
