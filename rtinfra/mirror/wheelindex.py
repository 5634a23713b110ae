"""The wheels of a lock as static pages that pip reads (PEP 503), with relative links: they work at any address."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from rtinfra.mirror.model import Blob, Lock, LockedWheel
from rtinfra.mirror.tree import Tree, united

INDEX = "simple"


def wheel_index(lock: Lock, earlier: Iterable[Lock] = ()) -> Tree:
    """Return a package index of the wheels of a lock.

    Args:
        lock: what it offers.
        earlier: locks whose pages clients may be reading: their files stay reachable.
    """
    projects: dict[str, list[LockedWheel]] = defaultdict(list)
    for wheel in lock.wheels:
        projects[wheel.name].append(wheel)
    pages = {f"{INDEX}/{name}/index.html": _page(map(_wheel_link, wheels)) for name, wheels in projects.items()}
    pages[f"{INDEX}/index.html"] = _page(_anchor(f"{name}/", name) for name in projects)
    return united([*(Tree({}, _files(old)) for old in earlier), Tree(pages, _files(lock))])


def _files(lock: Lock) -> dict[str, Blob]:
    return {_path(wheel): Blob(sha256=wheel.sha256, size=wheel.size) for wheel in lock.wheels}


def _path(wheel: LockedWheel) -> str:
    # By hash: a wheel of our own may change without its version changing.
    return f"files/{wheel.sha256[:2]}/{wheel.sha256}/{wheel.file}"


def _wheel_link(wheel: LockedWheel) -> str:
    return _anchor(f"../../{quote(_path(wheel))}#sha256={wheel.sha256}", wheel.file)


def _anchor(target: str, text: str) -> str:
    return f'<a href="{escape(target)}">{escape(text)}</a><br>\n'


def _page(links: Iterable[str]) -> bytes:
    head = '<!DOCTYPE html>\n<html>\n<head><meta charset="utf-8"><title>rtinfra mirror</title></head>\n<body>\n'
    return f"{head}{''.join(sorted(links))}</body>\n</html>\n".encode()
