"""An HTTP server on loopback that plays the API of a program, for tests of the setup scripts."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtinfra.render import render

#: Method, path with query, headers, body -> status, answer.
Answer = Callable[[str, str, dict[str, str], Any], tuple[int, Any]]


@dataclass
class Server:
    """A running server: where it is, and what it was asked."""

    url: str = ""
    calls: list[tuple[str, str, Any]] = field(default_factory=list)

    @property
    def writes(self) -> list[tuple[str, str]]:
        """Requests that change something, in their order."""
        return [(method, path) for method, path, _ in self.calls if method != "GET"]


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    """Serve on a free port of loopback."""
    found = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def reply(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            found.calls.append((self.command, self.path, body))
            status, content = answer(self.command, self.path, dict(self.headers), body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        do_GET = do_POST = do_PUT = reply

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run(role: str, document: Any, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the setup script of a role the way its unit does."""
    script, path = directory / "setup.py", directory / "setup.json"
    script.write_bytes(render(f"{role}/setup.py.j2"))
    path.write_text(json.dumps(document), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-I", str(script), str(path)], capture_output=True, text=True, check=False, timeout=60
    )
