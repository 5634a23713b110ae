"""The documents and comments are true to the code: what can be compared by a program is compared here."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest
from pydantic import BaseModel

from roles.catalogue import HOST_MODEL, ROLES
from roles.rt_kernel.model import RtKernelSettings
from rtinfra.config.merge import Located, merge
from rtinfra.config.sections import EVERY_HOST
from rtinfra.config.yaml import load_yaml
from rtinfra.cpu import Topology, resolve_layout
from rtinfra.paths import PROJECT

# The files that hold settings; those of a lab only change some.
SETTINGS = (
    "group_data/all.yaml",
    *(f"group_data/{group}.yaml" for group in dict.fromkeys(role.group for role in ROLES) if group != EVERY_HOST),
)
SHIPPED_YAML = (
    *(str(path.relative_to(PROJECT)) for path in sorted((PROJECT / "group_data").glob("*.yaml"))),
    "images/catalogue.yaml",
    "inventory/hosts.example.yaml",
    "metrics/limits.yaml",
    "waivers.yaml",
)
DOCS = ("README.md", *sorted(str(path.relative_to(PROJECT)) for path in (PROJECT / "docs").rglob("*.md")))


def text_of(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rt_host() -> str:
    return text_of("docs/rt-host.md")


# ---- the shipped YAML -------------------------------------------------------------------------------------


def keys(tree: Located, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Every key below `tree` with its line."""
    if isinstance(tree.value, Mapping):
        for key, child in tree.value.items():
            assert child.place is not None
            yield f"{prefix}{key}", child.place.line
            yield from keys(child, f"{prefix}{key}.")


@pytest.mark.parametrize("name", SHIPPED_YAML)
def test_every_key_has_a_comment_right_above_it(name: str) -> None:
    lines = text_of(name).splitlines()

    def indentation(line: str) -> int:
        return len(line) - len(line.lstrip())

    bare = []
    for key, number in keys(load_yaml(PROJECT / name, name)):
        own, above = lines[number - 1], lines[number - 2] if number > 1 else ""
        if not (above.lstrip().startswith("#") and indentation(above) == indentation(own)):
            bare.append(f"{name}:{number}: {key}")
    assert not bare, "without a comment right above:\n" + "\n".join(bare)


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as `Model` or `Model | None`."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def differences(model: type[BaseModel], tree: Located, prefix: str = "") -> Iterator[str]:
    """Fields that the YAML does not have, and keys that the models do not have."""
    assert isinstance(tree.value, Mapping), f"{prefix} is no section"
    fields = model.model_fields
    yield from (f"{prefix}{key}: no field of {model.__name__}" for key in tree.value.keys() - fields.keys())
    for name, field in fields.items():
        key, child = f"{prefix}{name}", tree.value.get(name)
        if child is None:
            yield f"{key}: not in the shipped YAML"
            continue
        inner = model_of(field.annotation)
        # A section that is switched off: what it may hold stands in its comment.
        is_off = child.value is None and type(None) in get_args(field.annotation)
        # What the entries of a list may hold stands in the comment of the list.
        if inner is None or is_off or isinstance(child.value, tuple):
            continue
        if issubclass(dict, getattr(field.annotation, "__origin__", type(None))):
            # A mapping with free keys: each value is a section of its own.
            assert isinstance(child.value, Mapping)
            for free, section in child.value.items():
                yield from differences(inner, section, f"{key}.{free}.")
        else:
            yield from differences(inner, child, f"{key}.")


def test_every_setting_is_in_the_shipped_yaml_and_nothing_else() -> None:
    merged = reduce(merge, (load_yaml(PROJECT / name, name) for name in SETTINGS))
    assert not list(differences(HOST_MODEL, merged))


# ---- docs/rt-host.md --------------------------------------------------------------------------------------


def plain(name: str) -> Any:
    return load_yaml(PROJECT / name, name).plain()


def test_every_kernel_parameter_is_explained(rt_host: str) -> None:
    settings = RtKernelSettings.model_validate(plain("group_data/rt_hosts.yaml")["rt_kernel"])
    layout, _ = resolve_layout("2-3", None, Topology.flat(4))
    assert layout is not None
    missing = [word for word in settings.command_line(layout) if f"| `{word}` |" not in rt_host]
    assert not missing


def test_every_sysctl_is_explained(rt_host: str) -> None:
    sysctl = plain("group_data/rt_hosts.yaml")["rt_tuning"]["sysctl"]
    assert not [key for key, value in sysctl.items() if f"| `{key} = {value}` |" not in rt_host]


def test_every_managed_path_is_named(rt_host: str) -> None:
    """The golden plan lists all of them."""
    plan = text_of("tests/golden/expected/debian-13.txt")
    paths = re.findall(r"^(?:file|directory|absent) (/\S+)", plan, re.MULTILINE)
    assert len(paths) > 20
    # A directory is named by itself or through what is in it.
    assert not [path for path in paths if f"`{path}`" not in rt_host and f"`{path}/" not in rt_host]


def test_every_unit_directive_is_explained(rt_host: str) -> None:
    """Of units on every real-time host; those of the telemetry roles say it in their own comments."""
    roles = [PROJECT / "templates" / role for role in ("base", "rt_app", "rt_kernel", "rt_tuning")]
    templates = [path for role in roles for kind in ("service", "slice") for path in role.glob(f"*.{kind}.j2")]
    templates += [PROJECT / "templates/rt_app/hardening.j2", PROJECT / "templates/base/journald.conf.j2"]
    templates += [PROJECT / "templates/rt_tuning/system.conf.j2", PROJECT / "templates/rt_tuning/cpus.conf.j2"]
    found = {line for path in templates for line in re.findall(r"^[A-Z]\w+=", path.read_text(), re.MULTILINE)}
    # Say nothing about how a unit runs.
    told = found - {"Description=", "Documentation=", "After=", "Before=", "WantedBy="}
    assert len(told) > 40
    assert not [directive for directive in sorted(told) if f"`{directive}" not in rt_host]


def test_every_masked_unit_is_explained(rt_host: str) -> None:
    units = plain("group_data/rt_hosts.yaml")["rt_tuning"]["masked_units"]
    assert not [unit for unit in units if f"| `{unit}` |" not in rt_host]


ROW = r"(?:RT|OB|AL|OF|L|PF)-\d+"
CONTROL = ROW + r"\.\d+"


def controls() -> set[str]:
    """Ids of all controls, read without running anything."""
    found = set()
    for path in (PROJECT / "tests" / "compliance").glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "control":
                ids = (word.value for word in node.keywords if word.arg == "id")
                found |= {str(node.value) for node in ids if isinstance(node, ast.Constant)}
    return found


@pytest.mark.parametrize("name", DOCS)
def test_every_control_that_is_named_exists(name: str) -> None:
    assert not set(re.findall(rf"\b{CONTROL}\b", text_of(name))) - controls()


def test_every_control_has_a_place_in_the_proof() -> None:
    """`RT-8.1` to `RT-8.19` stands for all in between."""
    text = text_of("docs/proof.md")
    covered = set(re.findall(rf"\b{CONTROL}\b", text))
    for row, first, same, last in re.findall(rf"`({ROW})\.(\d+)` to `({ROW})\.(\d+)`", text):
        assert row == same
        covered |= {f"{row}.{number}" for number in range(int(first), int(last) + 1)}
    assert not controls() - covered


# ---- links ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCS)
def test_every_relative_link_leads_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", text_of(name))
    files = [link.partition("#")[0] for link in links if "://" not in link]
    assert not [file for file in files if file and not (PROJECT / name).parent.joinpath(file).exists()]


# ---- glossary ---------------------------------------------------------------------------------------------


def test_the_glossary_is_in_order_and_names_what_there_is() -> None:
    _, _, rest = text_of("docs/architecture.md").partition("## Glossary\n")
    rows = [line.split(" | ") for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]
    terms = [row[0] for row in rows]
    assert len(terms) > 20 and terms == sorted(terms)
    for term, _, where in rows:
        places = re.findall(r"`([\w/]+\.py)`: (`\w+`(?:, `\w+`)*)", where)
        assert places, term
        for file, names in places:
            for name in re.findall(r"\w+", names):
                assert re.search(rf"^ *(?:(?:class|def) {name}\b|{name}\b.* = )", text_of(file), re.MULTILINE), (
                    term,
                    name,
                )


# ---- layers -----------------------------------------------------------------------------------------------


def test_every_module_has_its_layer() -> None:
    """import-linter (`tests/run lint`) holds imports against the layers; it says nothing of a module without one."""
    contracts = tomllib.loads(text_of("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "layers")
    placed = re.findall(r"[\w.]+", " ".join(layers))
    assert len(placed) == len(set(placed))
    package = PROJECT / "rtinfra"
    found = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set(placed) == {"roles", *(f"rtinfra.{name}" for name in found - {"__init__"})}


# ---- size -------------------------------------------------------------------------------------------------

# In lines: what a reader can still hold in mind.
LONGEST_FILE = 500
LONGEST_FUNCTION = 80


def too_long(name: str, text: str) -> Iterator[str]:
    """What of a Python file is longer than it may be; tests and benchmarks may have long functions."""
    if (lines := len(text.splitlines())) > LONGEST_FILE:
        yield f"{name}: {lines} lines"
    if name.startswith(("rtinfra/", "roles/")):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    yield f"{name}:{node.lineno}: {node.name}, {lines} lines"


def test_files_and_functions_are_short() -> None:
    folders = ("rtinfra", "roles", "tests", "benchmarks")
    files = [path for folder in folders for path in sorted((PROJECT / folder).rglob("*.py"))]
    found = [told for path in files for told in too_long(str(path.relative_to(PROJECT)), path.read_text("utf-8"))]
    assert files and not found, "\n".join(found)


def test_what_is_too_long_is_named() -> None:
    longest = "class A:\n    async def f(self):\n" + "        pass\n" * (LONGEST_FUNCTION - 1)
    assert not list(too_long("roles/a.py", longest + "#\n" * (LONGEST_FILE - LONGEST_FUNCTION - 1)))
    assert list(too_long("roles/a.py", longest + "        pass\n")) == ["roles/a.py:2: f, 81 lines"]
    assert list(too_long("tests/a.py", longest + "        pass\n")) == []
    assert list(too_long("tests/a.py", "#\n" * (LONGEST_FILE + 1))) == ["tests/a.py: 501 lines"]


# ---- what must not be in the repository -------------------------------------------------------------------


def repository_files() -> list[Path]:
    """Files that are, or would be, under git."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=PROJECT,
            capture_output=True,
            check=True,
        ).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [PROJECT / name for name in listed.split("\0") if name and (PROJECT / name).is_file()]


def registry_configuration() -> Iterator[str]:
    """Texts in which this machine says where its packages come from."""
    apt = Path("/etc/apt")
    home = Path.home()
    files: Iterable[Path] = [
        *(apt / "sources.list", apt / "apt.conf"),
        *(path for pattern in ("*.list", "*.sources") for path in (apt / "sources.list.d").glob(pattern)),
        *(apt / "apt.conf.d").glob("*"),
        *(Path("/etc/pip.conf"), Path("/etc/xdg/pip/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf"),
        *(PROJECT / ".venv/pip.conf", Path(os.environ.get("PIP_CONFIG_FILE", os.devnull))),
    ]
    for path in files:
        try:
            yield path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
    yield from (value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_")))


def registry_hosts() -> set[str]:
    lines = (
        line for text in registry_configuration() for line in text.splitlines() if not line.lstrip().startswith("#")
    )
    urls = (url for line in lines for url in re.findall(r"https?://[^\s\"';]+", line))
    hosts = {urlsplit(url).hostname or "" for url in urls}
    # A registry on this very machine has an address that everybody has.
    return {host for host in hosts if "." in host and not host.startswith("127.")}


def test_a_private_registry_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:word@packages.example.net:8443/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "http://127.0.0.1:8080/wheels")
    assert "packages.example.net" in registry_hosts()
    assert not any(host.startswith("127.") for host in registry_hosts())


def test_no_file_names_this_machine_or_its_registries() -> None:
    hosts = registry_hosts()
    here = re.compile(rf"(?<![\w.~-]){re.escape(str(PROJECT))}(?![\w-])".encode())
    told = []
    for path in repository_files():
        content = path.read_bytes()
        # The names themselves are not shown: this output may be published.
        if any(host.encode() in content for host in hosts):
            told.append(f"{path.relative_to(PROJECT)} names a package registry of this machine")
        if here.search(content):
            told.append(f"{path.relative_to(PROJECT)} has the path of this checkout")
    assert not told, "\n".join(told)
