"""Configuration as trees that remember where every value was written, and their deep merge.

Layers are merged all < group < host: mappings merge key by key, everything else replaces. A value keeps the
place of the layer it came from, so that a problem found after merging, even on the observed host, can cite the
line the operator has to change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Scalar: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True)
class Place:
    """A line of a file, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Located:
    """A value and where it was written.

    Attributes:
        value: a scalar, a mapping by key, or a tuple of list items.
        place: of the key that has this value; None only for values that no file contains.
        replaces: this mapping was merged over something that is no mapping (an explicit `null` above all),
            which stays hidden whatever this is merged over later. It makes the merge associative.
    """

    value: Scalar | Mapping[str, Located] | tuple[Located, ...]
    place: Place | None
    replaces: bool = False

    def plain(self) -> object:
        """Return the value as ordinary dicts, lists and scalars."""
        if isinstance(self.value, Mapping):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, tuple):
            return [child.plain() for child in self.value]
        return self.value

    def places(self, prefix: str = "") -> dict[str, Place]:
        """Return the place of everything in this tree by dotted key; list items by number, `users.0.name`.

        Args:
            prefix: dotted key of this tree itself, under which its own place stands.
        """
        found = {} if self.place is None else {prefix: self.place}
        for key, child in self._children():
            found |= child.places(joined(prefix, key))
        return found

    def _children(self) -> Iterator[tuple[str | int, Located]]:
        if isinstance(self.value, Mapping):
            yield from self.value.items()
        elif isinstance(self.value, tuple):
            yield from enumerate(self.value)


EMPTY = Located({}, None)


def merge(lower: Located, upper: Located) -> Located:
    """Merge two layers; `upper` wins. Associative, with EMPTY as identity."""
    if not isinstance(upper.value, Mapping) or upper.replaces:
        return upper
    place = upper.place or lower.place
    if not isinstance(lower.value, Mapping):
        return Located(upper.value, place, replaces=True)
    merged = dict(lower.value)
    for key, child in upper.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Located(merged, place, replaces=lower.replaces)


def joined(prefix: str, key: str | int) -> str:
    """Return the dotted key of `key` below `prefix`."""
    return f"{prefix}.{key}" if prefix else str(key)


def nearest_place(places: Mapping[str, Place], key: str) -> Place | None:
    """Return the place of a dotted key or, when it was never written, of its nearest existing parent.

    Keys may contain dots themselves (`sysctl.vm.swappiness`); shortening the text finds the parent anyway.
    """
    while key and key not in places:
        key = key.rpartition(".")[0]
    return places.get(key)
