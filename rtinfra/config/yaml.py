"""Load YAML files so that every value knows its line, and explain in plain words what is wrong with them.

Values are read as the operator wrote them. YAML has surprises (`0644` is the number 644 or 420, `1:30` is 90,
`on` is true, `1_000` is 1000, `2024-01-01` is a date, each depending on the version of the standard); here a
plain word is a number only when it looks like one to everybody, and text otherwise. The models decide what
text may mean: a file mode, a duration, a CPU list, or `on` for a switch.
"""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.reader import ReaderError

from rtinfra.config.merge import Located, Place, Scalar
from rtinfra.config.problems import ABSENT, ConfigError, Problem

_MAX_DEPTH: Final = 50
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})|0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+]?[0-9]{1,3})?")
# More than one character, and no name of the parser's own such as '<block end>'.
_QUOTED = re.compile(r"""(['"])(?!<)..+\1""")
_STR_TAG = "tag:yaml.org,2002:str"
_STANDARD_TAGS = ("str", "int", "float", "bool", "null", "timestamp", "map", "seq", "value", "merge")


class _Words(NamedTuple):
    """What a message of the parser means to someone who has never read the standard, and what to do.

    `at_start`: the line to look at is where the construct begins, not where the parser gave up.
    """

    fragment: str
    reason: str
    suggestion: str | None
    at_start: bool = False


_PLAIN_WORDS: Final = (
    _Words(
        "mapping values are not allowed",
        "there is a second colon where a value or a new line is expected",
        "put the value in quotes, or give this line the same indentation as its neighbours",
    ),
    _Words(
        "could not find expected ':'",
        "this line is no `key: value`",
        "write a colon and a blank after the key, and check that quotes and brackets are closed above",
        at_start=True,
    ),
    _Words(
        "expected <block end>",
        "the indentation does not match the lines above, or a list and keys are mixed",
        "give the keys of one section the same number of blanks",
    ),
    _Words(
        "unexpected end of stream",
        "a quotation mark is opened here and never closed",
        "close the quotes",
        at_start=True,
    ),
    _Words(
        "expected ',' or",
        "a bracket or brace is opened here and not closed, or a comma is missing",
        "check this list",
        at_start=True,
    ),
    _Words("found '<stream end>'", "the file ends in the middle of a list or section", "complete it"),
    _Words(
        "undefined alias",
        "a word that starts with * refers to something that does not exist",
        "put the value in quotes",
    ),
    _Words("unknown escape character", "a backslash in double quotes is special", "use single quotes"),
    _Words("another document", "a second document starts here (a line `---`)", "remove that line"),
    _Words("cannot start any token", "a value cannot start with this character", "put the value in quotes"),
    _Words("maximum depth", f"sections are nested deeper than {_MAX_DEPTH} levels", None),
)


def load_yaml(path: Path, name: str) -> Located:
    """Load a file whose top level is a mapping. An empty file is an empty mapping.

    Args:
        path: the file.
        name: how problems call it.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or repeats a key.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = f"cannot be read: {(error.strerror or str(error)).lower()}"
        raise ConfigError([Problem(name, None, "", ABSENT, reason, _access_hint(error))]) from error
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        reason = "the file starts with a byte order mark, as Windows editors write it"
        raise ConfigError([Problem(name, 1, "", ABSENT, reason, "save it as UTF-8 without BOM")])
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = "there is a character here that is not UTF-8"
        raise ConfigError([Problem(name, line, "", ABSENT, reason, "save it as UTF-8")]) from error
    return parse_yaml(text, name)


# A command looks at the same settings several times, and this is what takes long of it. Trees are never changed.
@lru_cache(maxsize=64)
def parse_yaml(text: str, name: str) -> Located:
    """Like `load_yaml`, from text.

    Raises:
        ConfigError: the text is no YAML, repeats a key, or is not a mapping.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = _MAX_DEPTH
    try:
        with warnings.catch_warnings():
            # It would quote the line, past every mask. Two anchors of one name do no harm: the nearer one counts.
            warnings.simplefilter("ignore", ReusedAnchorWarning)
            node = yaml.compose(text)
    except YAMLError as error:
        raise ConfigError([_parser_problem(error, text, name)]) from error
    start = Place(name, 1)
    if node is None:
        return Located({}, start)
    reader = _Reader(name)
    tree = reader.read(node, start, ())
    if tree.value is None and not reader.problems:
        return Located({}, start)
    if not isinstance(node, MappingNode):
        reader.complain(start, "", "the file must consist of `key: value` lines", _colon_hint(node))
    if reader.problems:
        raise ConfigError(reader.problems)
    return tree


def _access_hint(error: OSError) -> str | None:
    if isinstance(error, PermissionError):
        return "give yourself read permission"
    return "create it" if isinstance(error, FileNotFoundError) else None


def _colon_hint(node: Node) -> str | None:
    if isinstance(node, ScalarNode) and ":" in node.value:
        return "write a blank after the colon"
    return None


def _parser_problem(error: YAMLError, text: str, name: str) -> Problem:
    if isinstance(error, ReaderError):
        at = text.count("\n", 0, error.position) + 1
        return Problem(name, at, "", ABSENT, "there is an invisible control character here", "remove it")
    if not isinstance(error, MarkedYAMLError):
        return Problem(name, None, "", ABSENT, "this is no valid YAML")
    said = str(error.problem or error.context or "")
    words = next((words for words in _PLAIN_WORDS if words.fragment in said), None)
    start = error.context_mark if words and words.at_start else None
    mark = start or error.problem_mark or error.context_mark
    line: int | None = mark.line + 1 if mark else None
    for number, content in enumerate(text.splitlines()[:line], start=1):
        if re.match(r" *\t", content):
            reason = "this line is indented with a tab; YAML allows blanks only"
            return Problem(name, number, "", ABSENT, reason, "use two blanks for each level")
    if words:
        return Problem(name, line, "", ABSENT, words.reason, words.suggestion)
    # What the parser quotes is the operator's text, perhaps a password.
    return Problem(name, line, "", ABSENT, f"this is no valid YAML: {_QUOTED.sub('...', said)}")


class _Reader:
    """Turns the parser's nodes into a Located tree, collecting problems on the way."""

    def __init__(self, name: str) -> None:
        self.problems: list[Problem] = []
        self._name = name

    def complain(self, place: Place, key: str, reason: str, suggestion: str | None) -> None:
        self.problems.append(Problem(self._name, place.line, key, ABSENT, reason, suggestion))

    def read(self, node: Node, place: Place, above: tuple[Node, ...]) -> Located:
        """Read a node whose key or list item stands at `place`; `above` are the nodes it is inside of."""
        if any(node is outer for outer in above):
            self.complain(place, "", "a section contains itself (an alias with *)", "write it out")
            return Located(None, place)
        if str(node.tag).removeprefix("tag:yaml.org,2002:") not in _STANDARD_TAGS:
            reason = "a word that starts with ! is a tag; none is known here"
            self.complain(place, "", reason, "remove it, or put the value in quotes")
        if isinstance(node, MappingNode):
            return Located(self._read_mapping(node, (*above, node)), place)
        if isinstance(node, ScalarNode):
            return Located(_scalar(str(node.value), node.style is None and str(node.tag) != _STR_TAG), place)
        items = (self.read(item, self._place(item), (*above, node)) for item in node.value)
        return Located(tuple(items), place)

    def _read_mapping(self, node: MappingNode, above: tuple[Node, ...]) -> dict[str, Located]:
        found: dict[str, Located] = {}
        for key_node, value_node in node.value:
            place = self._place(key_node)
            value = self.read(value_node, place, above)
            key = key_node.value
            if not isinstance(key_node, ScalarNode) or (key in _NULL and key_node.style is None):
                hint = "check this line for a stray colon"
                self.complain(place, "", "a key must be a word", hint)
            elif key == "<<" and key_node.style is None:
                reason = "`<<` is not supported: layers are merged by group instead"
                self.complain(place, "", reason, "put the shared keys into the data of a group")
            elif key in found:
                first = found[key].place
                reason = f"the key is written twice; the first one is in line {first.line if first else '?'}"
                self.complain(place, key, reason, "keep one of them")
            else:
                found[key] = value
        return found

    def _place(self, node: Node) -> Place:
        return Place(self._name, node.start_mark.line + 1)


def _scalar(text: str, is_plain: bool) -> Scalar:
    """Return the value of a scalar; see the module's text for what counts as a number."""
    if not is_plain:
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
