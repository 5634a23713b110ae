"""Advisories in the public OSV format (https://ossf.github.io/osv-schema/), read from files that were carried here.

What is read was made by others: it is bounded in size, and what is wrong in one file hides none of the others.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from rtinfra.mirror.ecosystems import normalised
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import Line

#: Bytes of one advisory; the largest of the public ones have a tenth of it.
MOST_BYTES: Final = 16 << 20
#: Advisories of one audit: ten times what Python, Go and Debian have together.
MOST_FILES: Final = 2_000_000
#: Bytes of all advisories of one audit, unpacked.
MOST_IN_ALL: Final = 8 << 30

_Item = TypeVar("_Item")
# The format lets a list that is empty be null, too.
_List = Annotated[tuple[_Item, ...], BeforeValidator(lambda value: () if value is None else value)]
# Names and versions stand in messages.
_Name = Annotated[Line, Field(max_length=1000)]


def _utc(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)


class _Part(BaseModel):
    """A part of an advisory. The format grows: keys that nobody here asks for are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Event(_Part):
    """A version with which a weakness begins or ends; `0` is before all versions."""

    introduced: _Name | None = None
    fixed: _Name | None = None
    last_affected: _Name | None = None
    limit: _Name | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Event:
        if len(self.model_fields_set) != 1:
            raise ValueError("an event is one of introduced, fixed, last_affected, limit")
        return self


class Range(_Part):
    """Versions by where they begin and end. The type `GIT` speaks of commits, not of versions."""

    type: _Name
    events: Annotated[tuple[Event, ...], Field(min_length=1)]


class Package(_Part):
    """What an advisory is about."""

    ecosystem: _Name
    name: _Name


class Specific(_Part):
    """What only some ecosystems say: Debian's team rates the urgency."""

    urgency: str | None = None


class Affected(_Part):
    """A package with its weak versions: those that are listed, and those of the ranges."""

    package: Package | None = None
    ranges: _List[Range] = ()
    versions: _List[str] = ()
    ecosystem_specific: Specific | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Ecosystem and name; both empty where the advisory names commits only."""
        if self.package is None:
            return "", ""
        return self.package.ecosystem, normalised(self.package.ecosystem, self.package.name)


class Advisory(_Part):
    """One weakness, as one database tells it."""

    id: _Name
    modified: Annotated[datetime, AfterValidator(_utc)]
    withdrawn: datetime | None = None
    aliases: _List[_Name] = ()
    upstream: _List[_Name] = ()
    summary: str | None = None
    details: str | None = None
    affected: _List[Affected] = ()

    @property
    def names(self) -> frozenset[str]:
        """Every name of this one weakness. What a distribution says of several at once has a name of its own alone."""
        return frozenset((self.id, *self.aliases, *(self.upstream if len(self.upstream) == 1 else ())))

    @property
    def title(self) -> str:
        """What it is, in one line."""
        text = " ".join((self.summary or (self.details or "").strip().partition("\n")[0]).split()) or "no description"
        return text if len(text) <= 160 else f"{text[:159].rstrip()}…"


@dataclass(frozen=True)
class Unreadable:
    """A file that is no advisory."""

    file: str
    reason: str


@dataclass(frozen=True)
class Advisories:
    """What was read: `entries` are about the packages that were asked for, the others are all, by ecosystem."""

    entries: tuple[Advisory, ...]
    counts: Mapping[str, int]
    newest: Mapping[str, datetime]
    """When the last one was changed; none where the database does not say."""
    unreadable: tuple[Unreadable, ...]


def read(paths: Iterable[Path], about: Collection[tuple[str, str]]) -> Advisories:
    """Read .json files, .zip files of them, and folders of both.

    Args:
        paths: what was carried here.
        about: ecosystem and normalised name of the packages that are asked for.

    Raises:
        MirrorError: there is no such file, it is of another kind, or there is more than anybody publishes.
    """
    entries: dict[str, Advisory] = {}
    counts: Counter[str] = Counter()
    newest: dict[str, datetime] = {}
    unreadable: list[Unreadable] = []
    files = size = 0
    for shown, data in _contents(paths, unreadable):
        files, size = files + 1, size + len(data)
        if files > MOST_FILES or size > MOST_IN_ALL:
            raise MirrorError(
                f"{shown}: there are more than {MOST_FILES} advisories, or {MOST_IN_ALL >> 30} GiB of them",
                "name the files of the ecosystems that are used here: Debian, PyPI, Go",
            )
        try:
            advisory = Advisory.model_validate_json(data)
        except ValidationError as error:
            unreadable.append(Unreadable(*_told(shown, error)))
            continue
        keys = {affected.key for affected in advisory.affected}
        for ecosystem in {ecosystem for ecosystem, _ in keys}:
            counts[ecosystem] += 1
            # Go's database says in its sources that it was last changed in the year 1.
            if advisory.modified.year > 2000:
                newest[ecosystem] = max(newest.get(ecosystem, advisory.modified), advisory.modified)
        if advisory.withdrawn is None and not keys.isdisjoint(about):
            entries[advisory.id] = advisory
    return Advisories(tuple(entries.values()), counts, newest, tuple(unreadable))


def _contents(paths: Iterable[Path], unreadable: list[Unreadable]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        if path.is_dir():
            # Go's database has lists of itself in `index`.
            found = (one for one in sorted(path.rglob("*")) if one.is_file() and one.parent.name != "index")
            chosen = [one for one in found if one.suffix in (".json", ".zip")]
        elif path.is_file() and (path.suffix == ".json" or _is_zip(path)):
            chosen = [path]
        else:
            what = "is neither a .json file, a .zip file nor a folder" if path.exists() else "does not exist"
            raise MirrorError(f"{path} {what}", "docs/offline.md, Weaknesses, says where advisories come from")
        for one in chosen:
            try:
                yield from _members(one, unreadable) if _is_zip(one) else [(str(one), _bounded(one))]
            except (OSError, ValueError) as error:
                unreadable.append(Unreadable(str(one), str(error)))


def _is_zip(path: Path) -> bool:
    # In a pool of contents files are called by their hash.
    return path.suffix == ".zip" or (not path.suffix and zipfile.is_zipfile(path))


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"is larger than {MOST_BYTES >> 20} MiB")
    return data


def _members(path: Path, unreadable: list[Unreadable]) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(".json"):
                    continue
                shown = f"{path}: {member.filename}"
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    unreadable.append(Unreadable(shown, "is packed in another way than .zip files usually are"))
                    continue
                try:
                    with archive.open(member) as file:
                        data = file.read(MOST_BYTES + 1)
                except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                    unreadable.append(Unreadable(shown, str(error)))
                    continue
                if len(data) > MOST_BYTES:
                    unreadable.append(Unreadable(shown, f"is larger than {MOST_BYTES >> 20} MiB"))
                    continue
                yield shown, data
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"is no whole .zip file: {error}") from error


def _told(shown: str, error: ValidationError) -> tuple[str, str]:
    """Return where it is wrong, with the line where that is known, and why."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        reason = first["msg"].removeprefix("Invalid JSON: ")
        line = re.search(r" at line (\d+) column \d+$", reason)
        return (f"{shown}:{line[1]}" if line else shown), f"is no JSON: {reason}"
    key = ".".join(map(str, first["loc"]))
    return shown, f"is no advisory: {key}: {first['msg']}" if key else f"is no advisory: {first['msg']}"
