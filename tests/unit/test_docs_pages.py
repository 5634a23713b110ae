"""What pages say of commands, files, messages and numbers is so; the Korean ones say what the English ones say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from roles.prometheus.role import rule_files
from rtinfra.cli import COMMANDS, app, load
from rtinfra.config.yaml import load_yaml
from rtinfra.limits import project_limits
from rtinfra.mirror.importer import WARN_DAYS
from rtinfra.paths import PROJECT
from rtinfra.preflight.verdict import EXIT_NO_VERDICT
from rtinfra.verify.report import Status

DOCS = ("README.md", *sorted(str(path.relative_to(PROJECT)) for path in (PROJECT / "docs").rglob("*.md")))
#: An English page and what says the same in Korean.
TRANSLATED = {"README.md": "docs/ko/quickstart.md", "docs/offline.md": "docs/ko/offline.md"}
#: Folders whose texts operators read: messages, comments, what to do about a failed control.
TOLD = ("rtinfra", "roles", "templates", "group_data", "inventory", "images", "tests/compliance")
SUFFIXES = (".py", ".sh", ".j2", ".yaml", ".yml", ".txt")


def text_of(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def told_texts() -> list[str]:
    """Files in which an operator may be told a command, by name."""
    inside = (path for folder in TOLD for path in (PROJECT / folder).rglob("*") if path.suffix in SUFFIXES)
    names = (str(path.relative_to(PROJECT)) for path in inside if path.is_file())
    # What was built lies there beside its recipes, and is nobody's text.
    return sorted(name for name in names if not name.startswith("images/store/"))


# ---- commands ---------------------------------------------------------------------------------------------


def blocks(text: str) -> Iterator[str]:
    """Lines of the code blocks of a page."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()


def spans(text: str) -> list[str]:
    """Texts in backticks outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def calls(pieces: Iterator[str] | list[str]) -> Iterator[list[str]]:
    """Words after `rtinfra` of every call of it in lines of a shell."""
    for piece in pieces:
        for command in re.split(r"&&|[|;]", piece):
            # What follows a command after some space explains it.
            line = re.split(r"\s{2,}|\s#", re.sub(r"^(?:[$#] |\w+=\S+ )+", "", command.strip()))[0]
            if line.startswith("rtinfra ") or line == "rtinfra":
                yield line.split()[1:]


def wrong(words: list[str]) -> str | None:
    """Why `rtinfra WORDS` is no command; None when it is one. Values are placeholders and not looked at."""
    root: Any = typer.main.get_command(app)
    command = root
    context = command.context_class(command, info_name="rtinfra")
    left = list(words)
    while left and hasattr(command, "get_command") and not left[0].startswith("-"):
        name = left.pop(0)
        # What --help lists is imported when it is called.
        command = load(name) if command is root and name in COMMANDS else command.get_command(context, name)
        if command is None:
            return f"{name} is no command"
        context = command.context_class(command, info_name=name, parent=context, **command.context_settings)
    options = {opt: param for param in command.params for opt in (*param.opts, *param.secondary_opts)}
    places = [param.nargs for param in command.params if param.param_type_name == "argument"]
    # Words for another program: of the host behind `lab ssh`, of the preflight's own parser.
    if context.ignore_unknown_options or any(count < 0 for count in places):
        return None
    positional = 0
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            positional += 1
        elif word.partition("=")[0] != "--help":
            found = options.get(word.partition("=")[0])
            if found is None:
                return f"{word} is no option"
            del left[: 0 if found.is_flag or "=" in word else found.nargs]
    return f"{positional} arguments, {sum(places)} are taken" if positional > sum(places) else None


@pytest.mark.parametrize("name", DOCS)
def test_every_command_of_a_page_can_be_typed(name: str) -> None:
    text = text_of(name)
    found = list(calls([*blocks(text), *spans(text)]))
    assert not {" ".join(words): reason for words in found if (reason := wrong(words))}


def test_every_command_that_a_message_or_comment_names_can_be_typed() -> None:
    told = []
    for name in told_texts():
        # What an f-string puts in is anything: what stands before it counts.
        pieces = [piece.partition("{")[0] for piece in re.findall(r"`(rtinfra [^`\n]+)`", text_of(name))]
        told += [f"{name}: {' '.join(words)}: {why}" for words in calls(pieces) if (why := wrong(words))]
    assert not told


#: The page that explains a group of commands.
REFERENCE = {
    "images": "docs/images.md",
    "lab": "docs/lab.md",
    "mirror": "docs/offline.md",
    "notify": "docs/preflight.md",
    "stack": "docs/stack.md",
}


@pytest.mark.parametrize(("group", "name"), REFERENCE.items())
def test_every_command_of_a_group_is_on_its_page(group: str, name: str) -> None:
    found = load(group)
    known = set(found.list_commands(found.context_class(found)))
    text = text_of(name)
    assert known <= {words[1] for words in calls([*blocks(text), *spans(text)]) if words[:1] == [group] and words[1:]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("rtinfra plan --host robot-1 --output FILE && rtinfra apply --plan FILE", None),
        ("rtinfra lab ssh rt1 uname -v", None),
        ("rtinfra verify --compare OLD NEW", None),
        ("rtinfra mirror carry", "carry is no command"),
        ("$ rtinfra check --hosts all", "--hosts is no option"),
        ("rtinfra check now", "1 arguments, 0 are taken"),
    ],
)
def test_what_cannot_be_typed_is_noticed(line: str, reason: str | None) -> None:
    assert {wrong(words) for words in calls([line])} == {reason}


@pytest.mark.parametrize("name", DOCS)
def test_every_make_target_of_a_page_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", text_of("Makefile"), re.MULTILINE))
    text = text_of(name)
    named = [re.match(r"make ([a-z0-9-]+)$", piece.split("  ")[0]) for piece in (*blocks(text), *spans(text))]
    assert {match[1] for match in named if match} <= targets


def test_a_command_is_called_the_same_everywhere() -> None:
    """`rtinfra` and `pyinfra`: `. .venv/bin/activate` makes a terminal find them. install.sh makes the former."""
    names = {*DOCS, *told_texts()} - {"rtinfra/mirror/install.sh"}
    assert not [name for name in sorted(names) if re.search(r"\.venv/bin/(?:rtinfra|pyinfra)\b", text_of(name))]


@pytest.mark.parametrize("name", [*TRANSLATED, *TRANSLATED.values()])
def test_a_first_page_says_how_a_terminal_finds_the_commands(name: str) -> None:
    text = text_of(name)
    assert "make setup" in text
    assert text.index(". .venv/bin/activate") < text.index("\nrtinfra check")


# ---- files ------------------------------------------------------------------------------------------------

ROOTS = "docs|tests|rtinfra|roles|templates|group_data|inventory|images|metrics|benchmarks|molecule|requirements"
#: What an operator or a command makes.
MADE = {"inventory/hosts.yaml", "images/store", "images/store/"}


@pytest.mark.parametrize("name", DOCS)
def test_every_file_of_the_project_that_is_named_exists(name: str) -> None:
    named = {piece for piece in spans(text_of(name)) if re.fullmatch(rf"(?:{ROOTS})/[\w./*<>-]*", piece)}
    patterns = {piece: re.sub(r"<\w+>", "*", piece).strip("/") for piece in named - MADE}
    assert not [piece for piece, pattern in patterns.items() if not any(PROJECT.glob(pattern))]


@pytest.mark.parametrize("name", DOCS)
def test_every_test_that_is_named_exists(name: str) -> None:
    named = {piece for piece in spans(text_of(name)) if re.fullmatch(r"test_\w+", piece)}
    source = "".join(path.read_text(encoding="utf-8") for path in (PROJECT / "tests").rglob("test_*.py"))
    assert not [piece for piece in named if f"def {piece}(" not in source]


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)\)", text_of("README.md")))
    pages = {name for name in DOCS if name.startswith("docs/") and "/runbooks/" not in name}
    assert pages <= linked


# ---- the proof --------------------------------------------------------------------------------------------

#: How many rows each part of the requirements has.
ROWS = {"RT": 14, "OB": 16, "AL": 3, "PF": 5, "OF": 6, "L": 19}


def test_every_requirement_has_a_row_in_the_proof() -> None:
    heads = re.findall(
        r"^\| ([A-Z]+-\d+(?:(?:, | to )[A-Z]+-\d+)*|Section 6) \|", text_of("docs/proof.md"), re.MULTILINE
    )
    assert heads[-1] == "Section 6"
    covered = []
    for head in heads[:-1]:
        numbers = [(part, int(number)) for part, number in re.findall(r"([A-Z]+)-(\d+)", head)]
        (part, first), (_, last) = numbers[0], numbers[-1]
        covered += [f"{part}-{number}" for number in range(first, last + 1)]
    assert covered == [f"{part}-{number}" for part, count in ROWS.items() for number in range(1, count + 1)]


# ---- messages ---------------------------------------------------------------------------------------------


def sources() -> str:
    """All texts of ours that a message may stand in, pieces of one text joined, without what f-strings put in."""
    found = "\n".join(text_of(name) for name in told_texts() if name.startswith(("rtinfra/", "roles/", "templates/")))
    joined = re.sub(r'"\s*(?:#[^\n]*)?\n\s*f?"', "", found)
    return re.sub(r"\{[^{}\n]*\}", "...", joined)


def messages(name: str, anchor: str) -> list[str]:
    """Messages in the first column of the table of a section."""
    first = re.findall(r"^\| (.*?) \|", section(name, anchor), re.MULTILINE)
    return [piece for cell in first for piece in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("name", ["docs/offline.md", "docs/ko/offline.md"])
def test_every_message_of_the_mirror_that_is_explained_exists(name: str) -> None:
    text = sources()
    explained = messages(name, "refused")
    assert len(explained) > 15
    # Numbers and names in a message are an example's.
    parts = {part.strip(" ,:") for message in explained for part in re.split(r"\.\.\.|part-0001", message)}
    assert not [part for part in parts if part and part not in text]


# ---- numbers ----------------------------------------------------------------------------------------------


def settings(name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = load_yaml(PROJECT / "group_data" / name, name).plain()
    return found


def test_numbers_are_those_of_settings_and_code() -> None:
    everywhere, hosts, alerting = settings("all.yaml"), settings("rt_hosts.yaml"), settings("alertmanager.yaml")
    days, at = everywhere["mirror"]["valid_days"], everywhere["drift"]["at"]
    interval = alerting["alertmanager"]["p1_interval"].removesuffix("min")
    cores, memory = hosts["prerequisites"]["cores"], hosts["prerequisites"]["memory_mb"]
    expected = (
        ("docs/offline.md", f"`mirror.valid_days` ({days})"),
        ("docs/offline.md", f"complains {WARN_DAYS} days before"),
        ("docs/ko/offline.md", f"`mirror.valid_days`({days}일)"),
        ("docs/ko/offline.md", f"{WARN_DAYS}일 전부터"),
        ("docs/compliance.md", f"every day at {at}"),
        ("docs/rt-host.md", f"daily at {at}"),
        ("docs/alerts.md", f"at most one in `p1_interval` ({interval} min)"),
        ("docs/stack.md", f"less than {100 * project_limits().disk_used_low_ratio:g} % used"),
        ("docs/preflight.md", f"| {EXIT_NO_VERDICT} | no verdict"),
        ("docs/rt-host.md", f"| Physical cores | {cores} |"),
        ("docs/rt-host.md", f"| Memory | {memory} MB"),
        ("README.md", f"{cores} cores, {round(memory / 1000)} GB of memory"),
        ("docs/ko/quickstart.md", f"CPU 코어 {cores}개, 메모리 {round(memory / 1000)} GB"),
    )
    assert not [f"{name}: {text}" for name, text in expected if text not in text_of(name)]


def numbers(tree: Any) -> Iterator[str]:
    """Every number in settings."""
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from numbers(value)
    elif isinstance(tree, int):
        yield str(tree)


def test_ports_of_backends_are_those_of_their_settings() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", text_of("docs/backends.md"), re.MULTILINE)
    told = {role: set(re.findall(r"\d{4,}", ports)) for role, ports in rows if re.search(r"\d{4}", ports)}
    assert len(told) == 8
    assert not {
        role: wrong for role, ports in told.items() if (wrong := ports - set(numbers(settings(f"{role}.yaml"))))
    }


def test_times_and_shares_of_the_overview_are_those_of_the_rules() -> None:
    """What the overview says `for` how long is the rule's `for:` or a limit in it; each of its shares is one."""
    documents = [YAML(typ="safe").load(text) for text in rule_files(project_limits()).values()]
    rules = {
        rule["alert"]: rule
        for one in documents
        for group in one["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    rows = re.findall(r"^\| \[`(\w+)`\]\([^|]*\| (P\d) \| (.*) \|$", text_of("docs/alerts.md"), re.MULTILINE)
    assert {name for name, _, _ in rows} == rules.keys()
    wrong = []
    for name, priority, text in rows:
        rule, unit = rules[name], {"s": 1, "min": 60, "h": 3600}
        numbers = {float(number) for number in re.findall(r"[\d.]*\d", rule["expr"])}
        numbers |= {float(hours) * 3600 for hours in re.findall(r"(\d+) \* 3600", rule["expr"])}
        numbers |= {float(minutes) * 60 for minutes in re.findall(r"\[(\d+)m\]", rule["expr"])}
        waits = re.fullmatch(r"(\d+)(s|m|h)", rule.get("for", "0s"))
        assert waits is not None
        numbers.add(float(waits[1]) * {"s": 1, "m": 60, "h": 3600}[waits[2]])
        said = [float(number) * unit[of] for number, of in re.findall(r"for (\d+) (s|min|h)\b", text)]
        shares = [float(number) for number in re.findall(r"([\d.]+) %(?! quantile)", text)]
        if priority != rule["labels"]["priority"]:
            wrong.append(f"{name}: {priority}")
        # The alert log itself counts how long the watchdog has not come.
        wrong += [f"{name}: {time:.0f} s" for time in said if time not in numbers and name != "WatchdogNotArriving"]
        wrong += [f"{name}: {share} %" for share in shares if not numbers & {share, round(share / 100, 4)}]
    assert not wrong


@pytest.mark.parametrize("name", ["docs/ko/quickstart.md"])
def test_every_outcome_of_a_control_is_explained(name: str) -> None:
    table = text_of(name).partition("| 결과 | 뜻 |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| ([A-Z/]+) \|", table, re.MULTILINE) == [str(status) for status in Status]


# ---- Korean -----------------------------------------------------------------------------------------------

ANCHOR = r'^<a id="([a-z-]+)"></a>\n## '


def anchors(name: str) -> list[str]:
    """Sections that have a name, which is the same in both languages."""
    return re.findall(ANCHOR, text_of(name), re.MULTILINE)


def section(name: str, anchor: str) -> str:
    """Text of a section with a name, up to the next heading."""
    found = re.search(rf'^<a id="{anchor}"></a>\n## .*?(?=^## |^<a id=|\Z)', text_of(name), re.MULTILINE | re.DOTALL)
    assert found, f"{name} has no section {anchor}"
    return found[0]


@pytest.mark.parametrize(("english", "korean"), TRANSLATED.items())
def test_the_korean_page_has_the_sections_of_the_english_one(english: str, korean: str) -> None:
    assert len(anchors(english)) >= 5
    assert anchors(korean) == anchors(english)


def test_every_section_of_the_offline_page_has_a_name() -> None:
    for name in ("docs/offline.md", "docs/ko/offline.md"):
        assert len(re.findall(r"^## ", text_of(name), re.MULTILINE)) == len(anchors(name))


@dataclass(frozen=True)
class Said:
    """What a section says that does not depend on a language."""

    commands: frozenset[str]
    settings: frozenset[str]


def said(name: str, anchor: str) -> Said:
    text = section(name, anchor)
    pieces = [*blocks(text), *spans(text)]
    # Options, and what stands for a value, are written as each language likes.
    commands = {" ".join(word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)) for words in calls(pieces)}
    named = {piece for piece in spans(text) if re.fullmatch(r"[a-z_]+(?:\.[a-z_]+)+|/[\w/.-]+|rt_\w+: .*", piece)}
    return Said(frozenset(commands), frozenset(named))


@pytest.mark.parametrize("anchor", anchors("docs/offline.md"))
def test_the_korean_offline_page_names_the_same_commands_and_settings(anchor: str) -> None:
    assert said("docs/ko/offline.md", anchor) == said("docs/offline.md", anchor)


@pytest.mark.parametrize("anchor", ["own-host", "closed-networks"])
def test_the_korean_quick_start_has_the_commands_of_the_english_one(anchor: str) -> None:
    english, korean = said("README.md", anchor), said("docs/ko/quickstart.md", anchor)
    assert english.commands <= korean.commands


def test_messages_of_the_mirror_are_explained_in_both_languages() -> None:
    assert messages("docs/ko/offline.md", "refused") == messages("docs/offline.md", "refused")


def demands(name: str) -> dict[str, list[str]]:
    """Gigabytes and minutes that a page names where it speaks of trying things out."""
    text = section(name, "try")
    minutes = {
        target: re.findall(r"\d+", cell)
        for target, cell in re.findall(r"^\| `make (\w+)` \|.*\| ([^|]*) \|$", text, re.MULTILINE)
    }
    return {**minutes, "gigabytes": re.findall(r"(\d+) GB", text)}


def test_both_quick_starts_demand_the_same() -> None:
    english = demands("README.md")
    assert [len(english[what]) for what in ("demo", "test", "gigabytes")] == [4, 1, 2]
    assert demands("docs/ko/quickstart.md") == english


def test_the_time_of_make_test_is_the_same_everywhere() -> None:
    (told,) = re.findall(r"^test: .*\(about (\d+) minutes", text_of("Makefile"), re.MULTILINE)
    assert demands("README.md")["test"] == [told]
