"""What can be wrong with a configuration, and how it is told: file, line, key, value, reason, suggestion."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, MutableSequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import SecretBytes, SecretStr

from rtinfra.cpu import Severity

MASK: Final = "***"
_SECRET_NAME = re.compile(r"passw|secret|token|credential|api_?key|private_?key", re.IGNORECASE)
# Addresses and connection strings: a password is pasted into them, and then stands in the one that is refused.
_ADDRESS_NAME = re.compile(r"(?:^|[._])(?:url|uri|dsn|conninfo|webhook)(?:$|[.])", re.IGNORECASE)
_ADDRESS = re.compile(r"://|\b\w*(?:passw|secret|token)\w*\s*=", re.IGNORECASE)
_ADDRESS_IN_KEY = re.compile(r"[^.\s]*://\S*")
_LONGEST_VALUE = 100


class _Absent:
    """Type of ABSENT, "no value to show": None is a value that an operator can write."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


@dataclass(frozen=True)
class Finding:
    """What a check has to say about one key, before it is known where that key was written.

    Attributes:
        key: dotted key, for example `rt_app.rt_process.priority`. Relative to the model that reports it.
        value: the offending value; ABSENT when there is none.
        reason: what is wrong, a phrase without a full stop, for example `must be between 1 and 99`.
        suggestion: what to do, a phrase, for example `use 90`; None when nothing can be guessed.
        severity: an error refuses the configuration, a warning is only shown.
    """

    key: str
    value: object
    reason: str
    suggestion: str | None = None
    severity: Severity = "error"


@dataclass(frozen=True)
class Problem:
    """A finding with the place it comes from.

    Values that look secret, or may carry a password as addresses do, are masked on construction, wherever they are
    quoted, so that no later output can leak them.

    Attributes:
        file: path as shown to the operator, relative to the project folder where possible; None if unknown.
        line: line in that file, from 1; None if unknown.
        key: dotted key; empty when the problem is about the file as a whole.
        value, reason, suggestion, severity: see Finding.
        hosts: names of the hosts that have this problem; empty when it is not about a host's settings.
    """

    file: str | None
    line: int | None
    key: str
    value: object
    reason: str
    suggestion: str | None = None
    severity: Severity = "error"
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for text in sorted(_hidden(self.key, self.value), key=len, reverse=True):
            object.__setattr__(self, "reason", self.reason.replace(text, MASK))
            if self.suggestion and text in self.suggestion:
                object.__setattr__(self, "suggestion", None)
        object.__setattr__(self, "value", masked(self.key, self.value))
        object.__setattr__(self, "key", _ADDRESS_IN_KEY.sub(MASK, self.key))

    def __str__(self) -> str:
        """Return one line, such as `group_data/a.yaml:14: x.priority = 120: must be ... Suggestion: ...`."""
        parts = []
        if self.file is not None:
            parts.append(self.file if self.line is None else f"{self.file}:{self.line}")
        if self.severity == "warning":
            parts.append("warning")
        if self.key:
            parts.append(self.key if self.value is ABSENT else f"{self.key} = {_shown(self.value)}")
        parts.append(_sentence(self.reason))
        text = ": ".join(parts)
        if self.suggestion:
            text += f" Suggestion: {_sentence(self.suggestion)}"
        if self.hosts:
            text += f" ({_hosts_shown(self.hosts)})"
        # Keys and messages may carry what somebody pasted: no line breaks, no terminal sequences.
        return "".join(character if character.isprintable() else " " for character in text)

    def to_json(self) -> dict[str, object]:
        """Return plain JSON data. `value` is left out when there is none."""
        data: dict[str, object] = {
            "severity": self.severity,
            "file": self.file,
            "line": self.line,
            "key": self.key,
            "reason": self.reason,
            "suggestion": self.suggestion,
            "hosts": list(self.hosts),
        }
        if self.value is not ABSENT:
            data["value"] = json.loads(json.dumps(self.value, default=str))
        return data


class ConfigError(Exception):
    """The configuration cannot be used. Carries all problems that were found, sorted by place."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = collected(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        """Return a header with the count, then one problem per line."""
        errors = sum(problem.severity == "error" for problem in self.problems)
        warnings = len(self.problems) - errors
        counts = [_counted(errors, "error")] if errors else []
        counts += [_counted(warnings, "warning")] if warnings else []
        header = f"{' and '.join(counts) or 'no errors'} in the configuration:"
        return "\n".join([header, *(f"  {problem}" for problem in self.problems)])


class CrossCheckError(ValueError):
    """Raised by a model's validator to point at other keys than its own, with any number of findings.

    The keys of the findings are relative to the model whose validator raises; in the model of a whole host
    they are therefore complete. At least one finding must be an error: for checks that may only warn, use
    `report_findings`.
    """

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        if not any(finding.severity == "error" for finding in self.findings):
            raise TypeError("a CrossCheckError needs at least one finding that is an error")
        super().__init__("; ".join(f"{finding.key}: {finding.reason}" for finding in self.findings))


def report_findings(findings: Iterable[Finding], context: Mapping[str, Any] | None) -> None:
    """Raise when a finding is an error; otherwise hand the warnings to the loader through its context.

    Args:
        findings: what a model validator found.
        context: `info.context` of that validator. Without a `warnings` list in it, warnings are dropped:
            a model built in a test has nobody to read them.

    Raises:
        CrossCheckError: carrying errors and warnings.
    """
    found = tuple(findings)
    if any(finding.severity == "error" for finding in found):
        raise CrossCheckError(found)
    warnings = (context or {}).get("warnings")
    if isinstance(warnings, MutableSequence):
        warnings.extend(found)


def looks_secret(key: str) -> bool:
    """Tell whether a key's name says that its value must not be shown."""
    return _SECRET_NAME.search(key) is not None


def may_carry_password(key: str, value: object) -> bool:
    """Tell whether a value is an address or a connection string, by the name of its key or by what it looks like."""
    return isinstance(value, str) and bool(_ADDRESS_NAME.search(key) or _ADDRESS.search(value))


def _hidden(key: str, value: object) -> Iterator[str]:
    """Yield the texts in a value that `masked` hides, as a message may quote them."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _hidden(f"{key}.{name}" if looks_secret(key) else str(name), item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _hidden(key if looks_secret(key) else "", item)
    elif isinstance(value, str) and value and (looks_secret(key) or may_carry_password(key, value)):
        yield value


def masked(key: str, value: object) -> object:
    """Return `value` with everything secret in it replaced by a mask."""
    if value is ABSENT or value is None:
        return value
    if looks_secret(key) or isinstance(value, (SecretStr, SecretBytes)) or may_carry_password(key, value):
        return MASK
    if isinstance(value, Mapping):
        return {_ADDRESS_IN_KEY.sub(MASK, str(name)): masked(str(name), item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked("", item) for item in value]
    return value


def collected(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sort problems by place and join those that differ only in the host: one line of a file, one problem."""
    joined: dict[str, Problem] = {}
    for problem in problems:
        same = str(replace(problem, hosts=()))
        first = joined.get(same)
        if first is None:
            joined[same] = problem
        else:
            joined[same] = replace(first, hosts=tuple(dict.fromkeys((*first.hosts, *problem.hosts))))
    return tuple(sorted(joined.values(), key=lambda problem: (problem.file or "", problem.line or 0)))


def _shown(value: object) -> str:
    """Return a value on one line. JSON quotes line breaks and control characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."


def _hosts_shown(hosts: tuple[str, ...]) -> str:
    if len(hosts) == 1:
        return f"host {hosts[0]}"
    named = ", ".join(hosts[:3])
    return f"hosts {named}" if len(hosts) <= 3 else f"hosts {named} and {len(hosts) - 3} more"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
