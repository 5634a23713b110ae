"""What is different between two locks: what an update brings, before it is carried in and after."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cmp_to_key
from itertools import zip_longest
from typing import Literal, NamedTuple

from rtinfra.config.types import Settings
from rtinfra.mirror.model import Lock

What = Literal["package", "image", "wheel", "file"]
Change = Literal["added", "removed", "upgraded", "downgraded", "changed"]
"""changed: the highest version is the same, a content or a lower version is not."""

# What the characters of a version's non-digits count: `~` before the end, letters before everything else.
_TILDE = -1


class Difference(Settings):
    """One thing that is not the same in both locks."""

    what: What
    name: str
    change: Change
    before: str | None
    """Versions, several with commas."""
    after: str | None


class LockDiff(Settings):
    """How a lock differs from an earlier one."""

    before: str
    """Id of the earlier lock."""
    after: str
    differences: tuple[Difference, ...]
    """Sorted by kind and name."""
    new_contents: int
    """How many contents only the later lock has: what a bundle with the earlier one as its base brings."""
    new_bytes: int
    dropped_contents: int
    dropped_bytes: int

    def text(self) -> str:
        """Return it for people: one line for each difference, and the sums."""
        if not self.differences and not self.new_contents and not self.dropped_contents:
            return f"lock {self.after} holds the same as {self.before}\n"
        lines = [f"lock {self.before} -> {self.after}"]
        width = max((len(difference.name) for difference in self.differences), default=0)
        for difference in self.differences:
            versions = " -> ".join(version for version in (difference.before, difference.after) if version)
            if difference.before == difference.after:
                versions = difference.after or ""
            lines.append(f"  {difference.what:<7}  {difference.change:<10}  {difference.name:<{width}}  {versions}")
        lines.append(
            f"new: {self.new_contents} contents, {self.new_bytes / 1e6:.1f} MB;"
            f" no longer needed: {self.dropped_contents} contents, {self.dropped_bytes / 1e6:.1f} MB"
        )
        return "\n".join(line.rstrip() for line in lines) + "\n"


class _Item(NamedTuple):
    """One thing in a lock."""

    version: str
    sha256: str


def diff_locks(before: Lock, after: Lock) -> LockDiff:
    """Return how `after` differs from `before`."""
    old = {content.sha256: content for content in before.contents()}
    new = {content.sha256: content for content in after.contents()}
    return LockDiff(
        before=before.id,
        after=after.id,
        differences=tuple(_differences(before, after)),
        new_contents=len(new.keys() - old.keys()),
        new_bytes=sum(new[sha256].size for sha256 in new.keys() - old.keys()),
        dropped_contents=len(old.keys() - new.keys()),
        dropped_bytes=sum(old[sha256].size for sha256 in old.keys() - new.keys()),
    )


def _differences(before: Lock, after: Lock) -> Iterator[Difference]:
    views: tuple[tuple[What, Callable[[Lock], Iterable[tuple[str, _Item]]]], ...] = (
        ("package", lambda lock: ((each.name, _Item(each.version, each.sha256)) for each in lock.packages)),
        ("image", lambda lock: ((each.name, _Item(each.version, each.manifest.sha256)) for each in lock.images)),
        ("wheel", lambda lock: ((each.name, _Item(each.version, each.sha256)) for each in lock.wheels)),
        ("file", lambda lock: ((each.name, _Item("", each.sha256)) for each in lock.files)),
    )
    for what, view in views:
        old, new = _by_name(view(before)), _by_name(view(after))
        for name in sorted(old.keys() | new.keys()):
            difference = _compared(what, name, old.get(name, frozenset()), new.get(name, frozenset()))
            if difference is not None:
                yield difference


def _by_name(items: Iterable[tuple[str, _Item]]) -> Mapping[str, frozenset[_Item]]:
    grouped: dict[str, set[_Item]] = defaultdict(set)
    for name, item in items:
        grouped[name].add(item)
    return {name: frozenset(found) for name, found in grouped.items()}


def _compared(what: What, name: str, old: frozenset[_Item], new: frozenset[_Item]) -> Difference | None:
    if old == new:
        return None
    # A lock may have several versions of one thing: the highest one is what hosts end up with.
    before, after = _versions(old), _versions(new)
    change: Change
    if not old:
        change = "added"
    elif not new:
        change = "removed"
    else:
        order = compare_versions(before[-1], after[-1])
        change = "upgraded" if order < 0 else "downgraded" if order > 0 else "changed"
    return Difference(
        what=what, name=name, change=change, before=", ".join(before) or None, after=", ".join(after) or None
    )


def _versions(items: frozenset[_Item]) -> list[str]:
    return sorted({item.version for item in items}, key=cmp_to_key(compare_versions))


def compare_versions(one: str, other: str) -> int:
    """Compare two versions as dpkg does: negative, zero or positive (deb-version(7))."""
    return _compare(_split(one), _split(other))


def _split(version: str) -> tuple[int, str, str]:
    epoch, colon, rest = version.partition(":")
    upstream, _, revision = (rest if colon else version).rpartition("-")
    if not upstream:
        upstream, revision = revision, ""
    return int(epoch) if colon else 0, upstream, revision


def _compare(one: tuple[int, str, str], other: tuple[int, str, str]) -> int:
    if one[0] != other[0]:
        return one[0] - other[0]
    return _compare_part(one[1], other[1]) or _compare_part(one[2], other[2])


def _compare_part(one: str, other: str) -> int:
    """Compare runs of non-digits and of digits in turn."""
    runs, other_runs = (re.findall(r"([^0-9]*)([0-9]*)", part) for part in (one, other))
    for (text, number), (other_text, other_number) in zip_longest(runs, other_runs, fillvalue=("", "")):
        for weight, other_weight in zip_longest(map(_weight, text), map(_weight, other_text), fillvalue=0):
            if weight != other_weight:
                return weight - other_weight
        if (difference := int(number or 0) - int(other_number or 0)) != 0:
            return difference
    return 0


def _weight(character: str) -> int:
    if character == "~":
        return _TILDE
    return ord(character) if character.isalpha() else ord(character) + 256
