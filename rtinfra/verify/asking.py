"""Questions that a control puts to programs itself, because they need a password or because they do something."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rtinfra.connection import Connections
from rtinfra.facts import http
from rtinfra.facts.http import HttpAnswer, Request
from rtinfra.secrets import SecretError, operator_secrets
from rtinfra.verify import expect

_PAUSE_SECONDS = 0.5


class Asker:
    """Asks over HTTP from one host of the inventory."""

    def __init__(self, connections: Connections, host: str) -> None:
        self._connections = connections
        self._host = host

    def run(self, script: str) -> str:
        """Run a shell script on the host and return its output."""
        return self._connections.feed(self._host, script).text

    def ask_all(self, requests: Iterable[Request]) -> list[HttpAnswer]:
        """Make requests one after the other, in one round trip."""
        return list(http.parse(self.run(http.command(requests)).split("\n")))

    def ask(self, request: Request) -> HttpAnswer:
        """Make one request."""
        return self.ask_all([request])[0]

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Get a page."""
        return self.ask(Request(url, headers=headers or {}))

    def post(self, url: str, document: Any, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Post a JSON document."""
        body = json.dumps(document).encode()
        return self.ask(Request(url, "POST", body, {"Content-Type": "application/json", **(headers or {})}))

    def until(
        self, look: Callable[[], HttpAnswer], holds: Callable[[HttpAnswer], bool], seconds: float
    ) -> HttpAnswer | None:
        """Look again and again until it holds; None when it did not within the time."""
        deadline = time.monotonic() + seconds
        while True:
            asked = time.monotonic()
            answer = look()
            if holds(answer):
                return answer
            if asked > deadline:
                return None
            time.sleep(_PAUSE_SECONDS)


def basic(user: str, secret: str, environment: str) -> dict[str, str]:
    """Return the header that logs a user in; the control is not applicable where the password is not known here.

    `environment` is the `telemetry.environment` of the host.
    """
    return {"Authorization": "Basic " + base64.b64encode(user.encode() + b":" + known(secret, environment)).decode()}


def known(secret: str, environment: str) -> bytes:
    """Return a secret; the control is not applicable where it is not defined on this computer."""
    try:
        return operator_secrets(environment).read(secret)
    except SecretError:
        expect.not_applicable(f"the secret {secret} is not defined on this computer")
