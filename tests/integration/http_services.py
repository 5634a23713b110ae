"""HTTP servers on loopback that speak the real services' requests, and refuse what the real ones would refuse."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TELEGRAM_TOKEN = "4839201756:AAHplantedTelegramTokenValue0123456789"
SLACK_PATH = "/services/T00000000/B00000000/plantedSlackHookValue0000"
TEAMS_PATH = "/workflows/planted-teams-hook-value/triggers/manual/paths/invoke?sig=plantedSignature"
GENIE_KEY = "planted-genie-key-6f1a-4c33"
WEBHOOK_PATH = "/hook/planted-own-hook-value"


@dataclass
class Request:
    """What a service was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    size: int = 0


@dataclass
class Services:
    """All services on one port; `down` names those that answer 503, `busy` those that answer 429 once.

    `picky` names those that refuse more than some hundred bytes, whatever their documentation says.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)
    picky: set[str] = field(default_factory=set)
    healthy: bool = True

    def taken(self, channel: str) -> list[Request]:
        """Return the requests that a service has taken."""
        return [one for one in self.requests if _channel(one.path) == channel and one.headers.get("x-taken")]

    def answer(self, request: Request) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and document or text."""
        channel = _channel(request.path)
        if channel in self.down:
            return 503, {}, "unavailable"
        if channel in self.busy:
            self.busy.discard(channel)
            if channel == "telegram":
                return 429, {}, {"ok": False, "error_code": 429, "parameters": {"retry_after": 0.1}}
            return 429, {"Retry-After": "0"}, "slow down"
        if channel in self.picky and request.size > 1000:
            return 413 if channel == "teams" else 400, {}, "too much"
        status, document = getattr(self, f"_{channel}")(request)
        if 200 <= status < 300:
            request.headers["x-taken"] = "yes"
        return status, {}, document

    def _telegram(self, request: Request) -> tuple[int, Any]:
        if request.path != f"/bot{TELEGRAM_TOKEN}/sendMessage":
            return 401, {"ok": False, "error_code": 401, "description": "Unauthorized"}
        body = request.body
        if not isinstance(body.get("chat_id"), int) or not 1 <= _units(body.get("text", "")) <= 4096:
            return 400, {"ok": False, "error_code": 400, "description": "Bad Request: message is too long"}
        return 200, {"ok": True, "result": {"message_id": len(self.requests)}}

    def _slack(self, request: Request) -> tuple[int, Any]:
        if request.path != SLACK_PATH:
            return 404, "no_service"
        blocks = request.body.get("blocks", [])
        limits = {"header": 150, "section": 3000}
        if not request.body.get("text") or any(
            _units(block["text"]["text"]) > limits[block["type"]] for block in blocks
        ):
            return 400, "invalid_blocks"
        return 200, "ok"

    def _teams(self, request: Request) -> tuple[int, Any]:
        if request.path != TEAMS_PATH:
            return 401, {"error": {"code": "DirectApiInvalidAuthorizationScheme"}}
        if request.size > 28 * 1024:
            return 413, {"error": {"code": "RequestEntityTooLarge"}}
        (attachment,) = request.body["attachments"]
        if request.body["type"] != "message" or attachment["content"]["type"] != "AdaptiveCard":
            return 400, {"error": {"code": "InvalidTemplate"}}
        return 202, ""

    def _on_call(self, request: Request) -> tuple[int, Any]:
        if request.headers.get("authorization") != f"GenieKey {GENIE_KEY}":
            return 403, {"message": "You are not authorized to access this API"}
        if not 1 <= len(request.body.get("message", "")) <= 130 or len(request.body["description"]) > 15_000:
            return 422, {"message": "Request body is not processable"}
        return 202, {"result": "Request will be processed", "took": 0.1, "requestId": "43a29c5c"}

    def _webhook(self, request: Request) -> tuple[int, Any]:
        return (204, "") if request.path == WEBHOOK_PATH else (404, "")

    def _health(self, request: Request) -> tuple[int, Any]:
        return (200 if self.healthy else 503), {"status": "up" if self.healthy else "down"}


def _units(text: str) -> int:
    """Telegram and Slack count UTF-16 code units."""
    return len(text.encode("utf-16-le")) // 2


def _channel(path: str) -> str:
    beginnings = {
        "/bot": "telegram",
        "/services/": "slack",
        "/workflows/": "teams",
        "/v2/alerts": "on_call",
        "/hook/": "webhook",
        "/health": "health",
    }
    return next(name for beginning, name in beginnings.items() if path.startswith(beginning))


@contextmanager
def serving(services: Any) -> Iterator[Any]:
    """Serve whatever has `requests`, `answer(request)` and `url` on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            body = json.loads(raw) if raw else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, body, length)
            services.requests.append(request)
            status, more, document = services.answer(request)
            content = document.encode() if isinstance(document, str) else json.dumps(document).encode()
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(0 if status == 204 else len(content)))
            self.end_headers()
            if status != 204:
                self.wfile.write(content)

        do_GET = do_POST = reply

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    services.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield services
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class SecretManager:
    """Infisical's API as a machine identity sees it: login, one secret, all secrets of a path."""

    client_id: str
    client_secret: str
    secrets: dict[str, str]
    project: str = "64a1f0c2"
    environment: str = "prod"
    path: str = "/rtinfra"
    token: str = "planted-access-token-0001"
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    forbidden: bool = False

    def answer(self, request: Request) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and document."""
        parts = urlsplit(request.path)
        if parts.path == "/api/v1/auth/universal-auth/login":
            if request.body != {"clientId": self.client_id, "clientSecret": self.client_secret}:
                return 401, {}, {"statusCode": 401, "message": "Invalid credentials", "error": "Unauthorized"}
            token = {"accessToken": self.token, "expiresIn": 7200, "accessTokenMaxTTL": 43200, "tokenType": "Bearer"}
            return 200, {}, token
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return 401, {}, {"statusCode": 401, "message": "Token missing", "error": "TokenError"}
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if self.forbidden or asked.get("workspaceId") != self.project:
            return 403, {}, {"statusCode": 403, "message": "You are not allowed to access this resource"}
        here = asked.get("environment") == self.environment and asked.get("secretPath") == self.path
        name = parts.path.removeprefix("/api/v3/secrets/raw").strip("/")
        if not name:
            hidden = asked.get("viewSecretValue") == "false"
            shown = self.secrets if here else {}
            listed = [
                {"secretKey": key, "secretValue": "<hidden-by-infisical>" if hidden else value}
                for key, value in shown.items()
            ]
            return 200, {}, {"secrets": listed, "imports": []}
        if not here or name not in self.secrets:
            return 404, {}, {"statusCode": 404, "message": f"Secret with name '{name}' not found", "error": "NotFound"}
        return 200, {}, {"secret": {"secretKey": name, "secretValue": self.secrets[name], "type": "shared"}}
