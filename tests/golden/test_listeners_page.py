"""The table of all listeners in docs/packet-filter.md is what the roles say; `--update-golden` writes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from roles.catalogue import ROLES
from roles.facets import Bound
from roles.host import _ports
from roles.shape import Role
from rtinfra.paths import PROJECT
from tests.unit.telemetry_site import rt_app, shipped

PAGE = PROJECT / "docs" / "packet-filter.md"
HEAD = "| Setting of the port | Port | Who reaches it |\n|---|---|---|\n"


def rows() -> Iterator[str]:
    """Every listener, with its shipped port."""
    names = {"telemetry": "every host of the inventory"}
    for role in ROLES:
        assert isinstance(role, Role)
        own = rt_app() if role.name == "rt_app" else shipped(role.name)
        keys = {port: key for key, port in _ports(own)}
        for listener in role.listens:
            port = listener.port(own)
            who = [names.get(section.name, f"`{section.group}`") for section in listener.peers]
            who += ["people (`pages_from`)"] if listener.is_page else []
            alone = "the host itself, at 127.0.0.1" if listener.bound is Bound.LOOPBACK else "the host itself"
            transports = "" if listener.transports == ("tcp",) else ", TCP and UDP"
            yield f"| `{role.name}.{keys[port]}` | {port}{transports} | {', '.join(who) or alone} |\n"


def test_the_page_has_every_listener(request: pytest.FixtureRequest) -> None:
    before, head, rest = PAGE.read_text(encoding="utf-8").partition(HEAD)
    assert head
    after = rest.partition("\n\n")[2]
    text = f"{before}{head}{''.join(rows())}\n{after}"
    if request.config.getoption("--update-golden"):
        PAGE.write_text(text, encoding="utf-8")
    assert text == PAGE.read_text(encoding="utf-8")
