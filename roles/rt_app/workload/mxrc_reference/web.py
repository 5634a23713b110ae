"""A small HTTP server: looks routes up, counts requests, refuses what is malformed."""

from __future__ import annotations

import http.server
import json
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from .log import EcsLog


class Request(NamedTuple):
    """What a route gets to see of a request; names of headers are in lower case."""

    headers: Mapping[str, str]
    body: bytes
    began: float
    """When it came, of time.monotonic()."""


class Response(NamedTuple):
    """What a route answers; `afterwards` runs once the answer is sent."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}
    afterwards: Callable[[], None] | None = None


def json_response(status: int, document: Mapping[str, object], **headers: str) -> Response:
    """Return an answer with a JSON document."""
    return Response(status, json.dumps(document).encode() + b"\n", headers=headers)


Route = Callable[[Request], Response]
#: By path, then by method.
Routes = Mapping[str, Mapping[str, Route]]
#: A client's connection, as socketserver hands it on.
Connection = socket.socket | tuple[bytes, socket.socket]


class HttpStatistics:
    """Counts and durations of HTTP requests."""

    EDGES_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: dict[tuple[str, int], int] = {}
        #: By endpoint: one count per edge and one above all, then the sum in seconds.
        self.durations: dict[str, tuple[list[int], float]] = {}

    def observe(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        """Count one request."""
        slot = sum(seconds > edge for edge in self.EDGES_S)
        with self._lock:
            key = (method, status)
            self.requests[key] = self.requests.get(key, 0) + 1
            counts, total = self.durations.get(endpoint, ([0] * (len(self.EDGES_S) + 1), 0.0))
            counts[slot] += 1
            self.durations[endpoint] = (counts, total + seconds)


class RequestHandler(http.server.BaseHTTPRequestHandler):
    """Looks a route up, calls it, counts it."""

    server: HttpServer
    #: Seconds a client may take to send its request.
    timeout = 2.0
    BODY_LIMIT = 4096

    def do_GET(self) -> None:
        """Answer a GET request."""
        self._answer("GET")

    def do_POST(self) -> None:
        """Answer a POST request."""
        self._answer("POST")

    def version_string(self) -> str:
        """Return what the Server header says: no versions."""
        return "mxrc-reference"

    def log_message(self, format: str, *args: object) -> None:
        """Requests are counted, not logged: probes would fill the log."""

    def _answer(self, method: str) -> None:
        began = time.monotonic()
        endpoint = self.path.partition("?")[0]
        methods = self.server.routes.get(endpoint)
        if methods is None:
            # One label for all unknown paths: a caller must not be able to create metrics.
            response = json_response(404, {"error": "Not Found", "path": endpoint})
            endpoint = "other"
        elif method not in methods:
            document = {"error": "Method Not Allowed", "path": endpoint}
            response = json_response(405, document, Allow=", ".join(methods))
        else:
            response = self._call(methods[method], began)
        # Counted before it is sent: who has the answer finds it in the metrics.
        self.server.statistics.observe(method, endpoint, response.status, time.monotonic() - began)
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.body)
        if response.afterwards is not None:
            response.afterwards()

    def _call(self, route: Route, began: float) -> Response:
        length = self.headers.get("Content-Length") or "0"
        if not length.isdigit():
            return json_response(400, {"error": "Bad Request", "reason": "Content-Length is no number"})
        if int(length) > self.BODY_LIMIT:
            reason = f"body is larger than {self.BODY_LIMIT} bytes"
            return json_response(413, {"error": "Content Too Large", "reason": reason})
        headers = {name.lower(): value for name, value in self.headers.items()}
        return route(Request(headers, self.rfile.read(int(length)), began))


class HttpServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Answers each request in a thread of its own, so that no client can keep others waiting.

    Not http.server's class: that one looks its own name up in DNS, which takes seconds in a closed network.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128
    REQUESTS_AT_ONCE = 64

    def __init__(self, address: str, port: int, routes: Routes, statistics: HttpStatistics, log: EcsLog) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.routes = routes
        self.statistics = statistics
        self._log = log
        self._slots = threading.BoundedSemaphore(self.REQUESTS_AT_ONCE)
        super().__init__((address, port), RequestHandler)

    def process_request(self, request: Connection, client_address: object) -> None:
        """Start a thread for a request, once fewer than the limit are running."""
        self._slots.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Connection, client_address: object) -> None:
        """Serve one request in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Connection, client_address: object) -> None:
        """Log an error of a route; a client that went away is none."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            self._log.error(f"request failed: {traceback.format_exc()}")


class BadRequestError(Exception):
    """A request that is refused; the text is the reason."""


def parse_json_object(body: bytes) -> dict[str, object]:
    """Return the JSON object in a request body.

    Raises:
        BadRequestError: it is none.
    """
    # Deep nesting could overflow the small stack of a thread inside the parser.
    if body.count(b"[") + body.count(b"{") > 16:
        raise BadRequestError("body is nested too deeply")
    try:
        document = json.loads(body)
    except ValueError as error:
        raise BadRequestError(f"body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadRequestError("body must be a JSON object")
    return document


def refuse_unknown_keys(document: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse a request with keys that would be ignored."""
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise BadRequestError(f"unknown key {', '.join(unknown)}")
