"""Translate pydantic's errors into findings: the operator's key, plain words, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from rtinfra.config.merge import joined
from rtinfra.config.problems import ABSENT, MASK, CrossCheckError, Finding
from rtinfra.config.schema import (
    KEY_LABEL,
    allowed_values,
    bounds,
    is_secret,
    model_keys,
    root_field,
    step,
)

_MOST_CHOICES = 12

# By the error types of https://docs.pydantic.dev/latest/errors/validation_errors/; those that need more than
# a phrase are in _reason().
_REASONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "must be a list"),
    **dict.fromkeys(("dict_type", "model_type", "mapping_type"), "must be a section with keys of its own"),
    "string_type": "must be text",
    "path_type": "must be a path",
}
_RANGE_TYPES = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal"})
_CHOICE_TYPES = frozenset({"literal_error", "enum"})


def explain(error: ValidationError, model: type[BaseModel], data: object, prefix: str = "") -> list[Finding]:
    """Return one finding per key that pydantic refused, with complete dotted keys.

    Args:
        error: what validating `data` raised.
        model: the model it was validated with.
        data: the plain data, which tells real keys from pydantic's labels for the members of a union.
        prefix: dotted key of `data` itself.
    """
    findings: list[Finding] = []
    unions: dict[str, int] = {}
    for details in error.errors(include_url=False):
        spot = _Spot(model, data, details, prefix)
        if not spot.in_union:
            findings += spot.findings()
        elif spot.key not in unions:
            # Every member of a union reports its own error about the same value: one mistake, one finding.
            unions[spot.key] = len(findings)
            findings += spot.findings()[:1]
        else:
            first = findings[unions[spot.key]]
            reason = spot.findings()[0].reason.removeprefix("must be ")
            findings[unions[spot.key]] = Finding(
                first.key, first.value, f"{first.reason} or {reason}", first.suggestion
            )
    return findings


def did_you_mean(word: str, choices: Collection[str], label: str = "choose from") -> str | None:
    """Suggest the closest choice, or list the choices when none is close; None when there are none."""
    close = difflib.get_close_matches(word, choices, n=1) or difflib.get_close_matches(
        word.lower(), [choice.lower() for choice in choices], n=1
    )
    if close:
        return f"did you mean {next(choice for choice in choices if choice.lower() == close[0].lower())}?"
    if not choices:
        return None
    shown = ", ".join(list(choices)[:_MOST_CHOICES])
    return f"{label} {shown}" + (", ..." if len(choices) > _MOST_CHOICES else "")


class _Spot:
    """One error of pydantic with the key and the field it is about."""

    def __init__(self, model: type[BaseModel], data: object, details: ErrorDetails, prefix: str) -> None:
        self._details = details
        self._type = details["type"]
        self.key = prefix
        self.in_union = False
        self._parent: FieldInfo | None = None
        self._field: FieldInfo | None = root_field(model)
        self._name = ""
        *_, last = details["loc"] or ("",)
        for part in details["loc"]:
            is_written = (isinstance(data, Mapping) and part in data) or (
                isinstance(data, list) and isinstance(part, int) and part < len(data)
            )
            is_reported = part == last and self._type in ("missing", "extra_forbidden")
            if part == KEY_LABEL:
                self._field = self._parent and step(self._parent, KEY_LABEL)
            elif is_written or is_reported or (self._field and part in (model_keys(self._field) or ())):
                self.key, self._name = joined(self.key, part), str(part)
                self._parent, self._field = self._field, self._field and step(self._field, part)
                data = data[part] if is_written else None  # type: ignore[index]
            else:
                self.in_union = True

    def findings(self) -> list[Finding]:
        cause = self._details.get("ctx", {}).get("error")
        if isinstance(cause, CrossCheckError):
            return [
                Finding(
                    joined(self.key, found.key),
                    found.value,
                    found.reason,
                    found.suggestion,
                    found.severity,
                )
                for found in cause.findings
            ]
        value = self._value()
        reason, suggestion = self._reason(cause), self._suggestion(cause)
        if self._field is not None and is_secret(self._field) and value is not ABSENT:
            # A validator may have quoted the value in its message.
            reason = reason.replace(str(value), MASK)
            value, suggestion = MASK, None
        return [Finding(self.key, value, reason, suggestion)]

    def _value(self) -> object:
        """The offending value; ABSENT where it is a whole section, or where not the value is wrong."""
        value = self._details["input"]
        if self._type in ("missing", "extra_forbidden") or isinstance(value, (Mapping, BaseModel)):
            return ABSENT
        return value

    def _reason(self, cause: object) -> str:
        context: Mapping[str, Any] = self._details.get("ctx", {})
        if self._type == "missing":
            return "is required"
        if self._type == "extra_forbidden":
            return "is not a known key"
        if isinstance(cause, Exception):
            return str(getattr(cause, "reason", cause))
        if self._details["input"] is None:
            return "needs a value; it is empty or null here"
        if self._type in _RANGE_TYPES and self._field is not None:
            return _range_reason(self._field) or self._message()
        if self._type in _CHOICE_TYPES and self._field is not None:
            choices = allowed_values(self._field)
            text = ", ".join(str(choice) for choice in choices)
            return f"must be {text}" if len(choices) == 1 else f"must be one of {text}"
        if self._type == "string_pattern_mismatch":
            return f"does not have the expected form {context.get('pattern')}"
        return _REASONS.get(self._type) or self._message()

    def _message(self) -> str:
        """Pydantic's own message, as a phrase about the value."""
        message = self._details["msg"].removeprefix("Value error, ")
        for beginning, phrase in (("Input should ", "must "), ("Value should ", "must ")):
            message = message.replace(beginning, phrase)
        return message[:1].lower() + message[1:]

    def _suggestion(self, cause: object) -> str | None:
        value = self._details["input"]
        field = self._field
        if self._type == "extra_forbidden":
            known = (model_keys(self._parent) if self._parent else None) or ()
            return did_you_mean(self._name, known, "the keys known here are")
        if self._type == "missing":
            return _how_to_add(self._name, field)
        if isinstance(cause, Exception):
            suggestion = getattr(cause, "suggestion", None)
            return suggestion if isinstance(suggestion, str) else None
        if value is None:
            return "give it a value, or remove the line"
        if field is None:
            return None
        if field.examples:
            return f"use {field.examples[0]}"
        if self._type in _RANGE_TYPES:
            return _nearest_in_range(field, value)
        if self._type in _CHOICE_TYPES:
            choices = [str(choice) for choice in allowed_values(field)]
            return f"use {choices[0]}" if len(choices) == 1 else did_you_mean(str(value), choices, "use one of")
        if self._type == "string_type" and isinstance(value, (int, float)):
            return f'put it in quotes: "{str(value).lower() if isinstance(value, bool) else value}"'
        if _REASONS.get(self._type) == "must be a list" and isinstance(value, (str, int, float)):
            return f"write [{value}]"
        default = field.default
        if isinstance(default, (str, int, float)):
            return f"use {str(default).lower() if isinstance(default, bool) else default}, the default"
        return None


def _how_to_add(name: str, field: FieldInfo | None) -> str:
    if field is not None and field.examples:
        return f"add {name}: {field.examples[0]}"
    if field is not None and field.description:
        return f"add {name} ({field.description})"
    return f"add {name}"


def _range_reason(field: FieldInfo) -> str | None:
    at_least, more_than, at_most, less_than = bounds(field)
    if at_least is not None and at_most is not None:
        return f"must be between {at_least} and {at_most}"
    limits = [
        f"{words} {limit}"
        for words, limit in (
            ("at least", at_least),
            ("more than", more_than),
            ("at most", at_most),
            ("less than", less_than),
        )
        if limit is not None
    ]
    return f"must be {' and '.join(limits)}" if limits else None


def _nearest_in_range(field: FieldInfo, value: object) -> str | None:
    """The end of the range that a number missed; nothing for an open end, which has no such number."""
    if not isinstance(value, (int, float)):
        return None
    at_least, more_than, at_most, _ = bounds(field)
    if at_least is not None and value < at_least:
        return f"use {at_least}"
    if at_most is not None and value > at_most:
        return f"use {at_most}"
    if field.annotation is int and more_than is not None and value <= more_than:
        return f"use {more_than + 1} or more"
    return None
