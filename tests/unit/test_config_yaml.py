"""YAML files: values as written, lines of everything, and mistakes in plain words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtinfra.config.problems import ConfigError, Problem
from rtinfra.config.yaml import load_yaml, parse_yaml

# A busy machine is slow, not wrong.
steady = settings(deadline=None)


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f.yaml")
    return caught.value.problems


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("0", 0),
        ("0x1f", 31),
        ("1.5", 1.5),
        ("1.0e3", 1000.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("text", "text"),
        ("'1'", "1"),
        ('"null"', "null"),
        ("!!str 5", "5"),
        ("|-\n  5", "5"),
        # What YAML would turn into something else stays what was typed.
        ("2-3", "2-3"),
        ("08", "08"),
        ("0644", "0644"),
        ("1:30", "1:30"),
        ("on", "on"),
        ("no", "no"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("1e3", "1e3"),
        (".inf", ".inf"),
        ("9" * 30, "9" * 30),
    ],
)
def test_values_are_read_as_everybody_reads_them(written: str, value: object) -> None:
    plain = parse_yaml(f"key: {written}\n", "f.yaml").plain()
    assert plain == {"key": value}
    assert isinstance(plain, dict) and type(plain["key"]) is type(value)


def test_the_version_directive_does_not_bring_the_surprises_back() -> None:
    assert parse_yaml("%YAML 1.1\n---\na: on\nb: 017\nc: 1:30\n", "f").plain() == {
        "a": "on",
        "b": "017",
        "c": "1:30",
    }


def test_every_key_and_item_knows_its_line() -> None:
    text = "# comment\na:\n  b: 1\n\n  c:\n    - x\n    - {d: 2}\nsysctl: {vm.swappiness: 1}\n"
    places = parse_yaml(text, "f.yaml").places()
    assert {key: place.line for key, place in places.items()} == {
        "": 1,
        "a": 2,
        "a.b": 3,
        "a.c": 5,
        "a.c.0": 6,
        "a.c.1": 7,
        "a.c.1.d": 7,
        "sysctl": 8,
        "sysctl.vm.swappiness": 8,
    }


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n# start of a document\n", "null\n"])
def test_empty_files_are_empty_mappings(text: str) -> None:
    assert parse_yaml(text, "f.yaml").plain() == {}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: c: d\n", 2, "second colon"),
        ("a: 1\n  b: 2\n", 2, "second colon"),
        ("a:\n\tb: 1\n", 2, "tab"),
        ("a:\n  b: 1\n c: 2\n", 3, "indentation"),
        ("a: 1\nfoo\nb: 2\n", 2, "no `key: value`"),
        ("a: 1\nb: 'x\nc: 2\n", 2, "quotation mark"),
        ("a: 1\nb: [1, 2\nc: 3\n", 2, "bracket"),
        ("a: [\n", 2, "the file ends"),
        ("a: *b\n", 1, "starts with *"),
        ("a: @b\n", 1, "cannot start with"),
        ('a: "\\d"\n', 1, "backslash"),
        ("a: !secret b\n", 1, "tag"),
        ("a: !!python/object:os.system b\n", 1, "tag"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: \x01\n", 1, "control character"),
        ("a: " + "[" * 200, 1, "nested deeper"),
        ("a: &x\n  b: *x\n", 2, "contains itself"),
        ("- a\n- b\n", 1, "must consist of `key: value`"),
        ("a:1\n", 1, "must consist of `key: value`"),
        ("? [a, b]\n: 1\n", 1, "a key must be a word"),
        (": 1\n", 1, "a key must be a word"),
        ("a: 1\n<<: {b: 1}\n", 2, "not supported"),
    ],
)
def test_mistakes_are_explained_with_their_line(text: str, line: int, words: str) -> None:
    (problem,) = problems(text)
    assert (problem.file, problem.line) == ("f.yaml", line)
    assert words in problem.reason


def test_a_forgotten_blank_after_the_colon_is_recognised() -> None:
    assert problems("port:22\n")[0].suggestion == "write a blank after the colon"


def test_all_duplicate_keys_are_reported_with_the_first_ones_line() -> None:
    first, second = problems("a: 1\nb: {c: 1, c: 2}\nd: 1\na: 2\n")
    assert (first.line, first.key) == (2, "c")
    assert (second.line, second.key) == (4, "a")
    assert second.reason == "the key is written twice; the first one is in line 1"


def test_tabs_in_block_text_are_fine() -> None:
    assert parse_yaml("a: |\n  x\n  \ty\n", "f").plain() == {"a": "x\n\ty\n"}


def test_aliases_are_allowed() -> None:
    assert parse_yaml("a: &x [1]\nb: *x\n", "f").plain() == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"\xef\xbb\xbfa: 1\n", 1, "byte order mark"),
        ("a: 1\n".encode("utf-16"), 1, "byte order mark"),
        (b"a: 1\nb: \xe4\n", 2, "not UTF-8"),
    ],
)
def test_encodings_other_than_utf8_are_explained(tmp_path: Path, data: bytes, line: int, words: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path, "f.yaml")
    (problem,) = caught.value.problems
    assert problem.line == line
    assert words in problem.reason


def test_windows_line_ends_and_korean_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes("a: 실시간\r\nb: 2\r\n".encode())
    tree = load_yaml(path, "f.yaml")
    assert tree.plain() == {"a": "실시간", "b": 2}
    assert tree.places()["b"].line == 2


def test_files_without_permission_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match="give yourself read permission"):
        load_yaml(tmp_path / "f.yaml", "f.yaml")


def test_unreadable_files_are_explained(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "missing.yaml", "no such file"), (tmp_path, "directory")):
        with pytest.raises(ConfigError, match=words):
            load_yaml(path, "f.yaml")


@steady
@given(st.text() | st.text(alphabet="ab:-[]{}&*!|>'\"\\#,? \n\t", max_size=40))
def test_no_text_brings_the_reader_down(text: str) -> None:
    try:
        tree = parse_yaml(text, "f.yaml")
    except ConfigError as error:
        assert error.problems
        assert all(problem.file == "f.yaml" for problem in error.problems)
    else:
        assert isinstance(tree.plain(), dict)
