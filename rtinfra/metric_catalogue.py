"""The metrics this system has: the catalogue in metrics/catalogue.yaml, and which metrics a query uses.

Rules and dashboards may only use metrics of the catalogue; tests compare the two. `exposed` reads what a program really
shows, so that the catalogue can be held against a running system.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from rtinfra.paths import PROJECT

CATALOGUE: Final = PROJECT / "metrics" / "catalogue.yaml"
#: What the text of a metric of this type consists of: the metric's name with each of these behind it.
_SERIES: Final[Mapping[str, tuple[str, ...]]] = {
    "counter": ("",),
    "gauge": ("",),
    "untyped": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("", "_sum", "_count"),
}


@dataclass(frozen=True)
class Metric:
    """A metric: who exposes it, what it means. `labels` are its own; scraping adds host, role, job and others.

    `when` says for a metric that a healthy program does not always show, when it does.
    """

    name: str
    program: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    when: str | None = None

    @property
    def series(self) -> tuple[str, ...]:
        """Names of its series, the names that queries use."""
        return tuple(f"{self.name}{suffix}" for suffix in _SERIES[self.kind])


def load_catalogue(path: Path = CATALOGUE) -> dict[str, Metric]:
    """Return the metrics of the catalogue by the names of their series.

    Raises:
        ValueError: an entry is incomplete, or a name is there twice.
    """
    found: dict[str, Metric] = {}
    for program, metrics in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        for name, entry in metrics.items():
            kind, meaning = entry.get("type"), entry.get("meaning")
            if kind not in _SERIES or not meaning or entry.keys() - {"type", "labels", "meaning", "when"}:
                raise ValueError(f"{path.name}: {program}: {name} needs a type of {', '.join(_SERIES)} and a meaning")
            metric = Metric(name, program, kind, tuple(entry.get("labels", ())), meaning, entry.get("when"))
            for series in metric.series:
                if series in found:
                    raise ValueError(f"{path.name}: {series} is of {found[series].program} and of {program}")
                found[series] = metric
    return found


def exposed(text: str) -> dict[str, str]:
    """Return the metrics of a /metrics page with their types (Prometheus text format)."""
    return dict(re.findall(r"^# TYPE (\S+) (\w+)\s*$", text, re.MULTILINE))


_TOKEN = re.compile(
    r"""
      (?P<space>   \s+ | \#[^\n]* )
    | (?P<string>  "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' | `[^`]*` )
    | (?P<variable> \$\{[^}]*\} | \$\w+ | \[\[\w+\]\] )
    | (?P<number>  \.?[0-9][0-9A-Za-z.]* )
    | (?P<name>    [A-Za-z_:][A-Za-z0-9_:]* )
    | (?P<sign>    [=!]~ | [=!<>]= | [-+*/%^=<>(){}\[\],:@] )
    """,
    re.VERBOSE,
)
# Followed by labels in parentheses.
_LABEL_LISTS = frozenset(("by", "without", "on", "ignoring", "group_left", "group_right"))
# Words that are neither metric nor function; PromQL does not care about their case.
_WORDS = frozenset(("and", "or", "unless", "bool", "offset", "atan2", "inf", "nan"))
# The one kind of function whose parentheses may come later: `sum by (host) (up)`.
_AGGREGATIONS = frozenset(
    ("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "topk", "bottomk", "quantile", "count_values")
)


def metric_names(expression: str) -> set[str]:
    """Return the names of the metrics that a PromQL expression uses. Grafana's `$variables` may stand in it.

    Raises:
        ValueError: this is not PromQL: an unknown sign, a string or bracket without its end.
    """
    tokens = list(_tokens(expression))
    found: set[str] = set()
    position = 0
    while position < len(tokens):
        kind, text = tokens[position]
        following = tokens[position + 1][1] if position + 1 < len(tokens) else ""
        word = text.lower()
        if text == "{":
            end = _end(tokens, position, "{", "}")
            found |= _selected_names(tokens[position + 1 : end])
            position = end
        elif text == "[":
            # A range holds durations; a subquery's step is separated by `:`, which could begin a name.
            position = _end(tokens, position, "[", "]")
        elif kind == "name" and word in _LABEL_LISTS:
            if following == "(":
                position = _end(tokens, position + 1, "(", ")")
        elif kind == "name" and following != "(" and word not in _WORDS:
            later = following.lower() in ("by", "without")
            if not (later and word in _AGGREGATIONS):
                found.add(text)
        position += 1
    _check_balance(tokens)
    return found


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if match is None:
            raise ValueError(f"not PromQL at {expression[position : position + 20]!r}")
        position = match.end()
        if match.lastgroup != "space":
            assert match.lastgroup is not None
            yield match.lastgroup, match.group()


def _end(tokens: list[tuple[str, str]], start: int, opening: str, closing: str) -> int:
    """Return where the bracket that opens at `start` is closed."""
    depth = 0
    for position in range(start, len(tokens)):
        kind, text = tokens[position]
        if kind == "sign":
            depth += (text == opening) - (text == closing)
        if depth == 0:
            return position
    raise ValueError(f"{opening} without {closing}")


def _selected_names(inside: list[tuple[str, str]]) -> set[str]:
    """Return names that a selector gives as a label: `{__name__="up"}`."""
    return {
        value[1][1:-1]
        for name, sign, value in zip(inside, inside[1:], inside[2:], strict=False)
        if name[1] == "__name__" and sign[1] == "=" and value[0] == "string"
    }


def _check_balance(tokens: list[tuple[str, str]]) -> None:
    closing = {")": "(", "}": "{", "]": "["}
    open_ones: list[str] = []
    for kind, text in tokens:
        if kind != "sign":
            continue
        if text in closing.values():
            open_ones.append(text)
        elif text in closing and (not open_ones or open_ones.pop() != closing[text]):
            raise ValueError(f"{text} without {closing[text]}")
    if open_ones:
        raise ValueError(f"{open_ones[-1]} without its end")
