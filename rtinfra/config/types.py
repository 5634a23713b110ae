"""Building blocks of the settings models: the base class and the value types that several roles share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Final, Self
from urllib.parse import parse_qsl

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from rtinfra.cpu import NeedsTopology, parse_cpu_list


class Settings(BaseModel):
    """Base of every settings model: immutable, no unknown keys, defaults checked like operators' values."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        # The text of a ValidationError may end in a log; the loader shows values itself, secrets masked.
        hide_input_in_errors=True,
    )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; pyinfra calls this for `--json`. Secrets come out masked."""
        return self.model_dump(mode="json")


class SettingError(ValueError):
    """A value that a type of this module refuses.

    Attributes:
        reason: what is wrong, a phrase without a full stop.
        suggestion: what to write instead, or None.
    """

    def __init__(self, reason: str, suggestion: str | None = None) -> None:
        super().__init__(f"{reason}; {suggestion}" if suggestion else reason)
        self.reason = reason
        self.suggestion = suggestion


def _no_bool(value: object) -> object:
    # Python's True is the integer 1; `port: true` is a mistake, not port 1.
    if isinstance(value, bool):
        raise SettingError("must be a whole number, not true or false")
    return value


Port = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=65535)]
"""A TCP or UDP port."""


def without_password(url: str) -> str:
    """Return an address as it is.

    Raises:
        SettingError: it has a user name or password, in front of its host or in its query, as clients of Redis and
            PostgreSQL take them too.
    """
    authority, _, query = url.partition("://")[2].partition("?")
    names = [name for name, _ in parse_qsl(query.partition("#")[0], keep_blank_values=True)]
    if "@" in authority.partition("/")[0] or any(_SECRET_QUERY.search(name) for name in names):
        raise SettingError("must not contain a user name or password", "name a secret for that")
    return url


_SECRET_QUERY = re.compile(r"pass|secret|token|credential|api_?key|^key$|username|^auth|signature", re.IGNORECASE)

Url = Annotated[str, Field(pattern=r"^https?://[^\s/]\S*$"), AfterValidator(without_password)]
"""An address of HTTP, without user name and password."""

SecretName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", examples=["slack_webhook"])]
"""Name of a secret (rtinfra.secrets), never its value."""

RtPriority = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=99, examples=[90])]
"""A SCHED_FIFO or SCHED_RR priority, sched(7)."""


def _cpu_list_text(value: object) -> object:
    """Accept what YAML makes of a CPU list: `2` is a number and `[2, 3]` a list."""
    if isinstance(value, bool):
        raise SettingError("must be a CPU list, not true or false", 'write for example "2-3"')
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        raise SettingError("must be a CPU list, not a decimal number", 'write for example "2-3"')
    if isinstance(value, (list, tuple)) and all(type(item) in (int, str) for item in value):
        return ",".join(str(item) for item in value)
    return value


def _checked_cpu_list(text: str) -> str:
    # `N` and `all` are fine here: they are expanded against the host's real CPUs.
    with suppress(NeedsTopology):
        parse_cpu_list(text, None)
    return text.strip()


CpuListText = Annotated[str, BeforeValidator(_cpu_list_text), AfterValidator(_checked_cpu_list)]
"""A CPU list in kernel grammar (rtinfra.cpu), as written; its grammar has been checked."""


# systemd.unit(5) expands `%`, shells the others.
_SPECIAL: Final = frozenset("%$`\"'\\;&|<>()*?[]{}!#~^")


def _absolute(path: PurePosixPath) -> PurePosixPath:
    if not path.is_absolute():
        raise SettingError("must be an absolute path", f"use /{path}")
    if ".." in path.parts:
        raise SettingError("must not contain ..")
    if any(character.isspace() or not character.isprintable() for character in str(path)):
        # Units, sysfs lines and kernel parameters all split at blanks.
        raise SettingError("must not contain blanks or control characters")
    if found := sorted(set(str(path)) & _SPECIAL):
        plain = "".join(character for character in str(path) if character not in _SPECIAL)
        raise SettingError(f"must not contain {' '.join(found)}, which systemd or a shell would read", f"use {plain}")
    return path


AbsolutePath = Annotated[PurePosixPath, AfterValidator(_absolute)]
"""A path on the host. Defaults are written as `PurePosixPath("/etc/mxrc")`."""


_UNIT_TYPES = "service|socket|timer|path|mount|automount|swap|slice|scope|target|device"
_UNIT_NAME = re.compile(rf"[A-Za-z0-9:_.\\-]+(?:@[A-Za-z0-9:_.\\-]*)?\.(?:{_UNIT_TYPES})")


def _unit_name(name: str) -> str:
    if len(name) > 255 or not _UNIT_NAME.fullmatch(name):
        plain = re.fullmatch(r"[A-Za-z0-9:_.@\\-]+", name)
        raise SettingError(
            "must be the full name of a systemd unit, with its type at the end",
            f"use {name}.service" if plain else "write for example irqbalance.service",
        )
    return name


UnitName = Annotated[str, AfterValidator(_unit_name)]
"""Full name of a systemd unit, systemd.unit(5)."""


def _distribution(name: str) -> str:
    if not re.fullmatch(r"[a-z]+-[0-9]+(?:\.[0-9]+)?", name):
        raise SettingError("must be a distribution with its version", "write for example debian-13")
    return name


Distribution = Annotated[str, AfterValidator(_distribution)]
"""`ID-VERSION_ID` of os-release(5), for example `debian-13` or `ubuntu-24.04`."""


def _file_mode(value: object) -> object:
    if not isinstance(value, str):
        # 644 could be meant as octal or be a Python 0o644 that became 420: only text is unambiguous.
        raise SettingError("must be an octal file mode written as text", 'write for example "0644"')
    if not re.fullmatch(r"0?[0-7]{3,4}", value) or int(value, 8) > 0o7777:
        raise SettingError("is not an octal file mode", 'write for example "0644"')
    return f"{int(value, 8):04o}"


FileMode = Annotated[str, BeforeValidator(_file_mode)]
"""Octal file mode as four digits, for example `0644`."""


@dataclass(frozen=True, order=True)
class _Quantity:
    """A number with units, kept as written and compared by its amount: `60s` equals `1min`."""

    amount: int
    text: str = field(compare=False)

    # What a wrong value is told to look like.
    _EXAMPLE: ClassVar[str]

    @classmethod
    def parse(cls, text: str) -> Self:
        raise NotImplementedError

    def __str__(self) -> str:
        return self.text

    @classmethod
    def _validated(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise SettingError(f"must be text {cls._EXAMPLE}")
        return cls.parse(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validated, serialization=core_schema.to_string_ser_schema()
        )


_MICROSECONDS: Final[Mapping[str, int]] = {
    name: factor
    for names, factor in (
        ("us usec µs μs", 1),
        ("ms msec", 1_000),
        ("s sec second seconds", 1_000_000),
        ("m min minute minutes", 60_000_000),
        ("h hr hour hours", 3_600_000_000),
        ("d day days", 86_400_000_000),
        ("w week weeks", 604_800_000_000),
        ("M month months", 2_629_800_000_000),
        ("y year years", 31_557_600_000_000),
    )
    for name in names.split()
}
_TIME_PART = re.compile(r"\s*(?P<number>[0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(?P<unit>[A-Za-zµμ]*)")


class Duration(_Quantity):
    """A time span in the notation of systemd.time(7): `10s`, `1min 30s`, `500ms`. No unit means seconds.

    `infinity` is refused: everything here has an end that other settings are compared with.
    """

    _EXAMPLE = 'such as "10s", "1min 30s" or "500ms"'

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a time span.

        Raises:
            SettingError: not a time span.
        """
        total, position = Fraction(0), 0
        stripped = text.strip()
        while position < len(stripped) or not stripped:
            part = _TIME_PART.match(stripped, position)
            unit = part["unit"] or "s" if part else ""
            if part is None or unit not in _MICROSECONDS:
                raise SettingError(f"is not a time span {cls._EXAMPLE}", _time_suggestion(stripped))
            total += Fraction(part["number"]) * _MICROSECONDS[unit]
            position = part.end()
        return cls(int(total), stripped)

    @property
    def microseconds(self) -> int:
        """The time span in whole microseconds."""
        return self.amount

    @property
    def milliseconds(self) -> float:
        """The time span in milliseconds."""
        return self.amount / 1_000

    @property
    def seconds(self) -> float:
        """The time span in seconds."""
        return self.amount / 1_000_000


def _time_suggestion(text: str) -> str | None:
    if clock := re.fullmatch(r"([0-9]{1,4}):([0-9]{2})", text):
        return f'write "{int(clock[1])}min {int(clock[2])}s"'
    if number := re.match(r"[0-9]+", text):
        return f'write for example "{number[0]}s"'
    return None


_BYTE_FACTORS: Final[Mapping[str, int]] = {
    "": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50,
}  # fmt: skip


class ByteSize(_Quantity):
    """A size in the notation of systemd: `512M`, `1G`; factors of 1024, no unit means bytes."""

    _EXAMPLE = 'such as "512M" or "2G"'

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a size.

        Raises:
            SettingError: not a size.
        """
        stripped = text.strip()
        match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([BKMGTP]?)", stripped)
        if match is None:
            number = re.match(r"([0-9]{1,15})\s*([kmgtp])?", stripped, re.IGNORECASE)
            suggestion = f'write "{number[1]}{(number[2] or "M").upper()}"' if number else None
            raise SettingError(f"is not a size {cls._EXAMPLE}", suggestion)
        return cls(int(Fraction(match[1]) * _BYTE_FACTORS[match[2]]), stripped)

    @property
    def bytes(self) -> int:
        """The size in bytes."""
        return self.amount
