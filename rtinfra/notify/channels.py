"""The channels: each knows one service's request, and what its answers mean."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import SecretStr

from rtinfra.notify.errors import DeliveryError, NotifyError
from rtinfra.notify.message import Notification, Priority, short, utf16_units
from rtinfra.notify.settings import NotifySettings, OnCallSettings, TelegramSettings
from rtinfra.secrets import SecretError

if TYPE_CHECKING:
    import httpx

_TOO_MANY = 429
_SERVER_ERRORS = 500
_LONGEST_ANSWER = 200
# What is answered to a document that is too long or holds something that the service does not know.
_WRONG_DOCUMENT = (400, 413)
# Limits of the services: UTF-16 code units, characters of a block, bytes of a request.
_TELEGRAM_UNITS = 4096
_SLACK_HEADER, _SLACK_SECTION = 150, 3000
_TEAMS_BYTES = 28_000
_ON_CALL_DESCRIPTION = 15_000


class Secrets(Protocol):
    """Source of credentials for channels."""

    def get(self, name: str) -> SecretStr:
        """Return a secret; raises SecretError."""
        ...


class Channel(Protocol):
    """One way to people. `name` is how settings and logs call it."""

    name: str

    def accepts(self, notification: Notification) -> bool:
        """Whether it is for messages of this kind."""
        ...

    def send(self, notification: Notification, timeout: float) -> None:
        """Deliver a message within `timeout` seconds; raises DeliveryError."""
        ...


class HttpChannel(ABC):
    """A channel that is one POST request with a JSON document.

    What services limit is the document as they get it: escaped, encoded and with everything in it. So `fits` measures
    a finished one, and what does not fit is made again from a shorter message.
    """

    name: str
    lowest = Priority.P1

    def accepts(self, notification: Notification) -> bool:
        """Whether it is for messages of this kind."""
        return notification.priority <= self.lowest

    @abstractmethod
    def address(self) -> tuple[str, Mapping[str, str]]:
        """Return the URL and headers."""

    @abstractmethod
    def document(self, notification: Notification) -> Any:
        """Return the JSON document of a message."""

    def fits(self, document: Any) -> bool:
        """Whether the service takes a document of this size."""
        return True

    def accepted(self, answer: httpx.Response) -> bool:
        """Whether an answer without an error status means that the message was taken."""
        return True

    def send(self, notification: Notification, timeout: float) -> None:
        """Deliver a message within `timeout` seconds; raises DeliveryError.

        One that is refused for what it holds is sent once more with what matters most: whoever is told less is told.
        """
        document = self.fitting(notification)
        answer = self._post(document, timeout)
        if answer.status_code in _WRONG_DOCUMENT and (brief := self.document(notification.brief())) != document:
            answer = self._post(brief, timeout)
        if not answer.is_success:
            raise DeliveryError(
                f"answered {answer.status_code}: {_told(answer)}",
                final=answer.status_code < _SERVER_ERRORS and answer.status_code != _TOO_MANY,
                retry_after=_retry_after(answer),
            )
        if not self.accepted(answer):
            raise DeliveryError(f"did not take the message: {_told(answer)}", final=True)

    def fitting(self, notification: Notification) -> Any:
        """Return the longest document of a message that fits."""
        found = self.document(notification)
        if self.fits(found):
            return found
        found, least, most = self.document(notification.brief()), 0, sum(map(len, notification.problems))
        while least <= most:
            room = (least + most) // 2
            document = self.document(notification.cut(room))
            if self.fits(document):
                found, least = document, room + 1
            else:
                most = room - 1
        return found

    def _post(self, document: Any, timeout: float) -> httpx.Response:
        import httpx

        # It would log addresses, and those of Telegram, Slack and Teams are the secret.
        for library in ("httpx", "httpcore"):
            logging.getLogger(library).setLevel(logging.WARNING)
        url, headers = self.address()
        try:
            return httpx.post(
                url,
                content=encoded(document),
                headers={"Content-Type": "application/json", **headers},
                timeout=timeout,
                follow_redirects=False,
            )
        except httpx.TimeoutException:
            raise DeliveryError(f"no answer within {timeout:g} s") from None
        except httpx.InvalidURL:
            raise DeliveryError("its address is not a URL", final=True) from None
        except (httpx.HTTPError, OSError) as error:
            raise DeliveryError(f"cannot be reached ({type(error).__name__}: {error})") from None


class Telegram(HttpChannel):
    """sendMessage of the Bot API, https://core.telegram.org/bots/api#sendmessage."""

    name = "telegram"

    def __init__(self, settings: TelegramSettings, token: SecretStr) -> None:
        self._settings = settings
        self._token = token

    def address(self) -> tuple[str, Mapping[str, str]]:
        """Return the URL and headers."""
        return f"{self._settings.api_url}/bot{self._token.get_secret_value()}/sendMessage", {}

    def document(self, notification: Notification) -> Any:
        """Return the JSON document of a message."""
        return {
            "chat_id": self._settings.chat_id,
            # Plain text: no character of a message can be taken for markup.
            "text": f"{notification.headline}\n\n{notification.body()}",
            "link_preview_options": {"is_disabled": True},
            "disable_notification": notification.priority is Priority.P1,
        }

    def fits(self, document: Any) -> bool:
        """Whether the service takes a document of this size."""
        return utf16_units(document["text"]) <= _TELEGRAM_UNITS

    def accepted(self, answer: httpx.Response) -> bool:
        """Whether the document says `ok` too."""
        try:
            return bool(answer.json()["ok"])
        except (ValueError, KeyError, TypeError):
            return False


class Slack(HttpChannel):
    """An incoming webhook, https://api.slack.com/messaging/webhooks."""

    name = "slack"

    def __init__(self, url: SecretStr) -> None:
        self._url = url

    def address(self) -> tuple[str, Mapping[str, str]]:
        """Return the URL and headers."""
        return self._url.get_secret_value(), {}

    def document(self, notification: Notification) -> Any:
        """Return the JSON document of a message."""
        # plain_text in the heading, and in the rest the three characters that Slack wants escaped.
        body = notification.body()
        for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            body = body.replace(character, entity)
        heading = short(notification.headline, _SLACK_HEADER)
        return {
            "text": heading,
            "blocks": [
                {"type": "header", "text": {"type": "plain_text", "text": heading}},
                {"type": "section", "text": {"type": "mrkdwn", "text": body}},
            ],
        }

    def fits(self, document: Any) -> bool:
        """Whether the service takes a document of this size."""
        return utf16_units(document["blocks"][1]["text"]["text"]) <= _SLACK_SECTION


def _unlinked(text: str) -> str:
    """Return a text for an adaptive card, which would make a link of `[words](address)`."""
    return text.replace("](", "]\\(")


class Teams(HttpChannel):
    """A workflow "when a Teams webhook request is received", which takes an adaptive card."""

    name = "teams"

    def __init__(self, url: SecretStr) -> None:
        self._url = url

    def address(self) -> tuple[str, Mapping[str, str]]:
        """Return the URL and headers."""
        return self._url.get_secret_value(), {}

    def fits(self, document: Any) -> bool:
        """Whether the service takes a document of this size."""
        return len(encoded(document)) <= _TEAMS_BYTES

    def document(self, notification: Notification) -> Any:
        """Return the JSON document of a message."""
        colour = "attention" if notification.priority is Priority.P0 else "warning"
        problems = [
            {"type": "TextBlock", "text": _unlinked(text), "wrap": True}
            for one in notification.problems
            for text in (f"{one.what}: {one.detail}", f"What to do: {one.next_step}" if one.next_step else "")
            if text
        ]
        if notification.more:
            problems.append({"type": "TextBlock", "text": notification.more, "wrap": True})
        card: dict[str, Any] = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [
                {
                    "type": "TextBlock", "text": _unlinked(notification.headline), "weight": "bolder", "size": "large",
                    "color": colour, "wrap": True,
                },
                {
                    "type": "FactSet",
                    "facts": [{"title": name, "value": value} for name, value in notification.facts.items()],
                },
                *problems,
            ],
        }  # fmt: skip
        if notification.runbook:
            card["actions"] = [{"type": "Action.OpenUrl", "title": "Runbook", "url": notification.runbook}]
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
        return {"type": "message", "attachments": [attachment]}


class OnCall(HttpChannel):
    """An alert at an on-call service that speaks OpsGenie's protocol, POST /v2/alerts; failures only."""

    name = "on_call"
    lowest = Priority.P0

    def __init__(self, settings: OnCallSettings, key: SecretStr) -> None:
        self._settings = settings
        self._key = key

    def address(self) -> tuple[str, Mapping[str, str]]:
        """Return the URL and headers."""
        return f"{self._settings.api_url}/v2/alerts", {"Authorization": f"GenieKey {self._key.get_secret_value()}"}

    def document(self, notification: Notification) -> Any:
        """Return the JSON document of a message."""
        return {
            "message": short(notification.headline, 130),
            # The same trouble of the same host is one alert there, however often it is reported.
            "alias": f"{notification.source}-{notification.host}-{notification.environment}"[:512],
            "description": notification.body(),
            "priority": "P1",
            "source": notification.host[:100],
            "entity": notification.host[:512],
            "tags": [notification.source[:50], notification.environment[:50]],
            "details": {**notification.facts, "Runbook": notification.runbook or ""},
        }

    def fits(self, document: Any) -> bool:
        """Whether the service takes a document of this size."""
        return utf16_units(document["description"]) <= _ON_CALL_DESCRIPTION


class Webhook(HttpChannel):
    """A program of one's own; the document is described in docs/preflight.md."""

    name = "webhook"

    def __init__(self, url: SecretStr) -> None:
        self._url = url

    def address(self) -> tuple[str, Mapping[str, str]]:
        """Return the URL and headers."""
        return self._url.get_secret_value(), {}

    def document(self, notification: Notification) -> Any:
        """Return the JSON document of a message."""
        return notification.to_json()


def open_channels(settings: NotifySettings, secrets: Secrets) -> Iterator[Channel]:
    """Return the channels that are configured.

    Raises:
        NotifyError: one of them has no credential.
    """

    def credential(channel: str, name: str) -> SecretStr:
        try:
            return secrets.get(name)
        except SecretError as error:
            raise NotifyError(
                f"the channel {channel} is configured and has no credential: {error.message}", error.next_step
            ) from None

    if (telegram := settings.telegram) is not None:
        yield Telegram(telegram, credential("telegram", telegram.token_secret))
    if settings.slack is not None:
        yield Slack(credential("slack", settings.slack.url_secret))
    if settings.teams is not None:
        yield Teams(credential("teams", settings.teams.url_secret))
    if (on_call := settings.on_call) is not None:
        yield OnCall(on_call, credential("on_call", on_call.key_secret))
    if settings.webhook is not None:
        yield Webhook(credential("webhook", settings.webhook.url_secret))


def encoded(document: Any) -> bytes:
    """Return a document as it is sent. What others wrote may hold halves of characters: they become question marks."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _told(answer: httpx.Response) -> str:
    return " ".join(answer.text[:_LONGEST_ANSWER].split()) or answer.reason_phrase


def _retry_after(answer: httpx.Response) -> float | None:
    """Return the seconds a service asks to wait, as header or, at Telegram, in the document."""
    try:
        return float(answer.headers["Retry-After"])
    except (KeyError, ValueError):
        pass
    try:
        return float(answer.json()["parameters"]["retry_after"])
    except (ValueError, KeyError, TypeError):
        return None
