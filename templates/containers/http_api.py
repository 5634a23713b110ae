"""A JSON API over HTTP with nothing but the standard library: a bare host has no other client."""

import base64
import json
import time
import urllib.error
import urllib.request
from pathlib import Path


class ApiError(Exception):
    """An answer that was not expected. The text has no body of ours in it: that may be a password."""


class Api:
    """One server. Calls wait for it to come up, until `patience` seconds after its creation."""

    def __init__(self, url, headers=None, user=None, password=None, patience=240):
        self.url = url
        self.headers = {"Content-Type": "application/json", **(headers or {})}
        if user is not None:
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            self.headers["Authorization"] = f"Basic {token}"
        self.deadline = time.monotonic() + patience

    def call(self, method, path, body=None, accept=(200, 201, 204)):
        """Return status and answer. While the server is not up (no connection, 502, 503), try again."""
        data = None if body is None else json.dumps(body).encode()
        while True:
            try:
                request = urllib.request.Request(self.url + path, data, self.headers, method=method)
                with urllib.request.urlopen(request, timeout=30) as response:
                    status, content = response.status, response.read()
            except urllib.error.HTTPError as error:
                status, content = error.code, error.read()
            except OSError as error:
                status, content = 0, str(error).encode()
            if status in accept:
                try:
                    return status, json.loads(content)
                except ValueError:
                    return status, content.decode(errors="replace")
            if status not in (0, 502, 503) or time.monotonic() > self.deadline:
                said = content[:500].decode(errors="replace")
                raise ApiError(f"{method} {self.url}{path}: {status or 'no answer'}: {said}")
            time.sleep(1)


def secret(path):
    """Return the content of a secret's file."""
    return Path(path).read_text(encoding="utf-8").rstrip("\n")
