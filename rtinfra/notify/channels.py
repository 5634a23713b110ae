"""The channels: each knows one service's request, and what its answers mean."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import SecretStr

from rtinfra.notify.errors import DeliveryError, NotifyError
from rtinfra.notify.message import Notification, Priority
from rtinfra.notify.settings import NotifySettings, OnCallSettings, TelegramSettings
from rtinfra.secrets import SecretError

if TYPE_CHECKING:
    import httpx

_TOO_MANY = 429
_SERVER_ERRORS = 500
_LONGEST_ANSWER = 200


class Secrets(Protocol):
    """Where credentials come from."""

    def get(self, name: str) -> SecretStr:
        """Return a secret; raises SecretError."""
        ...


class Channel(Protocol):
    """One way to people. `name` is how settings and logs call it."""

    name: str

    def wants(self, notification: Notification) -> bool:
        """Whether it is for messages of this kind."""
        ...

    def send(self, notification: Notification, timeout: float) -> None:
        """Deliver a message within `timeout` seconds; raises DeliveryError."""
        ...


class HttpChannel:
    """A channel that is one POST request."""

    name: str
    lowest = Priority.P1

    def wants(self, notification: Notification) -> bool:
        """Whether it is for messages of this kind."""
        return notification.priority <= self.lowest

    def request(self, notification: Notification) -> tuple[str, Any, Mapping[str, str]]:
        """Return address, JSON document and headers."""
        raise NotImplementedError

    def accepted(self, answer: httpx.Response) -> bool:
        """Whether an answer without an error status means that the message was taken."""
        return True

    def send(self, notification: Notification, timeout: float) -> None:
        """Deliver a message within `timeout` seconds; raises DeliveryError."""
        import httpx

        # It would log addresses, and those of Telegram, Slack and Teams are the secret.
        for library in ("httpx", "httpcore"):
            logging.getLogger(library).setLevel(logging.WARNING)
        url, document, headers = self.request(notification)
        try:
            answer = httpx.post(url, json=document, headers=dict(headers), timeout=timeout, follow_redirects=False)
        except httpx.TimeoutException:
            raise DeliveryError(f"no answer within {timeout:g} s") from None
        except httpx.InvalidURL:
            raise DeliveryError("its address is not a URL", final=True) from None
        except (httpx.HTTPError, OSError) as error:
            raise DeliveryError(f"cannot be reached ({type(error).__name__}: {error})") from None
        if not answer.is_success:
            raise DeliveryError(
                f"answered {answer.status_code}: {_told(answer)}",
                final=answer.status_code < _SERVER_ERRORS and answer.status_code != _TOO_MANY,
                retry_after=_retry_after(answer),
            )
        if not self.accepted(answer):
            raise DeliveryError(f"did not take the message: {_told(answer)}", final=True)


class Telegram(HttpChannel):
    """sendMessage of the Bot API, https://core.telegram.org/bots/api#sendmessage."""

    name = "telegram"

    def __init__(self, settings: TelegramSettings, token: SecretStr) -> None:
        self._settings = settings
        self._token = token

    def request(self, notification: Notification) -> tuple[str, Any, Mapping[str, str]]:
        """Return address, JSON document and headers."""
        # Plain text: no character of a message can be taken for markup. 4096 characters are allowed.
        document = {
            "chat_id": self._settings.chat_id,
            "text": f"{notification.headline}\n\n{notification.body()}",
            "link_preview_options": {"is_disabled": True},
            "disable_notification": notification.priority is Priority.P1,
        }
        return f"{self._settings.api_url}/bot{self._token.get_secret_value()}/sendMessage", document, {}

    def accepted(self, answer: httpx.Response) -> bool:
        """Telegram says `ok` in the document too."""
        try:
            return bool(answer.json()["ok"])
        except (ValueError, KeyError, TypeError):
            return False


class Slack(HttpChannel):
    """An incoming webhook, https://api.slack.com/messaging/webhooks."""

    name = "slack"

    def __init__(self, url: SecretStr) -> None:
        self._url = url

    def request(self, notification: Notification) -> tuple[str, Any, Mapping[str, str]]:
        """Return address, JSON document and headers."""
        # plain_text in the heading, and in the rest the three characters that Slack wants escaped.
        body = notification.body(2900)
        for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            body = body.replace(character, entity)
        document = {
            "text": notification.headline,
            "blocks": [
                {"type": "header", "text": {"type": "plain_text", "text": notification.headline[:150]}},
                {"type": "section", "text": {"type": "mrkdwn", "text": body}},
            ],
        }
        return self._url.get_secret_value(), document, {}


class Teams(HttpChannel):
    """A workflow "when a Teams webhook request is received", which takes an adaptive card."""

    name = "teams"

    def __init__(self, url: SecretStr) -> None:
        self._url = url

    def request(self, notification: Notification) -> tuple[str, Any, Mapping[str, str]]:
        """Return address, JSON document and headers."""
        colour = "attention" if notification.priority is Priority.P0 else "warning"
        problems = [
            {"type": "TextBlock", "text": text, "wrap": True}
            for one in notification.problems
            for text in (f"{one.what}: {one.detail}", f"What to do: {one.next_step}" if one.next_step else "")
            if text
        ]
        card: dict[str, Any] = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [
                {
                    "type": "TextBlock", "text": notification.headline, "weight": "bolder", "size": "large",
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
        return self._url.get_secret_value(), {"type": "message", "attachments": [attachment]}, {}


class OnCall(HttpChannel):
    """An alert at an on-call service that speaks OpsGenie's protocol, POST /v2/alerts; failures only."""

    name = "on_call"
    lowest = Priority.P0

    def __init__(self, settings: OnCallSettings, key: SecretStr) -> None:
        self._settings = settings
        self._key = key

    def request(self, notification: Notification) -> tuple[str, Any, Mapping[str, str]]:
        """Return address, JSON document and headers."""
        document = {
            # Longer ones are refused.
            "message": notification.headline[:130],
            # The same trouble of the same host is one alert there, however often it is reported.
            "alias": f"{notification.source}-{notification.host}-{notification.environment}"[:512],
            "description": notification.body(15_000),
            "priority": "P1",
            "source": notification.host[:100],
            "entity": notification.host[:512],
            "tags": [notification.source, notification.environment],
            "details": {**notification.facts, "Runbook": notification.runbook or ""},
        }
        headers = {"Authorization": f"GenieKey {self._key.get_secret_value()}"}
        return f"{self._settings.api_url}/v2/alerts", document, headers


class Webhook(HttpChannel):
    """A program of one's own; the document is described in docs/preflight.md."""

    name = "webhook"

    def __init__(self, url: SecretStr) -> None:
        self._url = url

    def request(self, notification: Notification) -> tuple[str, Any, Mapping[str, str]]:
        """Return address, JSON document and headers."""
        return self._url.get_secret_value(), notification.to_json(), {}


class Apprise:
    """Everything that the library Apprise has a plug-in for."""

    name = "apprise"

    def __init__(self, urls: SecretStr) -> None:
        import apprise

        # Their logs name addresses, which hold passwords.
        for library in ("apprise", "urllib3", "requests"):
            logging.getLogger(library).setLevel(logging.CRITICAL)
        self._types = {Priority.P0: apprise.NotifyType.FAILURE, Priority.P1: apprise.NotifyType.WARNING}
        self._apprise = apprise.Apprise()
        for number, url in enumerate(urls.get_secret_value().split(), start=1):
            if not self._apprise.add(url):
                raise NotifyError(
                    f"apprise is configured, and address {number} of its secret is none that Apprise knows",
                    "correct it; the kinds are listed in Apprise's documentation",
                )

    def wants(self, notification: Notification) -> bool:
        """It is for all messages."""
        return True

    def send(self, notification: Notification, timeout: float) -> None:
        """Deliver a message; Apprise has time limits of its own. Raises DeliveryError."""
        taken = self._apprise.notify(
            title=notification.headline,
            body=notification.body(),
            notify_type=self._types[notification.priority],
        )
        if not taken:
            raise DeliveryError("one of its addresses did not take the message")


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
    if settings.apprise is not None:
        yield Apprise(credential("apprise", settings.apprise.urls_secret))


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
