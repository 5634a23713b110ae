"""Where every notification goes through: throttle, channels, record."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from rtinfra.local.errors import LocalError
from rtinfra.notify.channels import Channel, Secrets, open_channels
from rtinfra.notify.errors import DeliveryError, NotifyError
from rtinfra.notify.message import Notification
from rtinfra.notify.record import Record
from rtinfra.notify.settings import NotifySettings
from rtinfra.notify.throttle import Throttle
from rtinfra.secrets import SecretError

log = logging.getLogger("rtinfra.notify")
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
# What a thread may take beyond the time limits of its requests.
_GRACE_SECONDS = 5.0
_SHORTEST_HIDDEN = 4


@dataclass(frozen=True)
class Delivery:
    """What became of a message on one channel; `error` is empty when it was taken, and has no secret in it."""

    channel: str
    ok: bool
    attempts: int
    error: str = ""


@dataclass(frozen=True)
class Sent:
    """What became of a notification. `withheld`: a warning that came too soon after another."""

    notification: Notification
    withheld: bool
    deliveries: tuple[Delivery, ...]

    @property
    def ok(self) -> bool:
        """Whether every channel that should have it has it."""
        return all(delivery.ok for delivery in self.deliveries)

    def to_json(self) -> dict[str, Any]:
        """Return it for the evidence."""
        return {
            "id": self.notification.id,
            "priority": self.notification.priority.value,
            "withheld": self.withheld,
            "deliveries": [asdict(delivery) for delivery in self.deliveries],
        }


class Notifier:
    """Sends notifications through all channels at once."""

    def __init__(
        self,
        settings: NotifySettings,
        secrets: Secrets,
        state: Path,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Open all channels; `state` is the directory for what must outlive the process.

        Raises:
            NotifyError: a channel is configured and its credential is missing.
        """
        self._settings = settings
        self._throttle = Throttle(state / "throttle.json", settings.p1_interval.seconds, clock)
        self._sleep = sleep
        self._known = _Known(secrets)
        self._channels = tuple(open_channels(settings, self._known))
        self._record = _open_record(settings, self._known, state / "unrecorded.jsonl")

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of what is configured."""
        return tuple(channel.name for channel in self._channels) + (("record",) if self._record else ())

    def notify(self, notification: Notification, *, always: bool = False) -> Sent:
        """Send a notification, unless it is a warning that comes too soon; `always` is for trying channels out.

        It never raises because of a channel: what failed is in the result and in the log.
        """
        decision = self._throttle.decide(notification.priority) if not always else None
        if decision is not None:
            notification = replace(notification, withheld_before=decision.withheld_before)
        withheld = decision is not None and not decision.send
        deliveries = () if withheld else self._send(notification)
        if decision is not None and not withheld and deliveries and not any(one.ok for one in deliveries):
            self._throttle.release(decision)
        if self._record is not None:
            deliveries += (self._write_down(self._record, notification, withheld, deliveries),)
        for delivery in deliveries:
            if not delivery.ok:
                log.error("%s: %s, tried %d times", delivery.channel, delivery.error, delivery.attempts)
        return Sent(notification, withheld, deliveries)

    def _send(self, notification: Notification) -> tuple[Delivery, ...]:
        receiving = [channel for channel in self._channels if channel.accepts(notification)]
        found: dict[str, Delivery] = {}

        def work(channel: Channel) -> None:
            found[channel.name] = self._attempts(
                channel.name, lambda: channel.send(notification, self._settings.timeout.seconds)
            )

        threads = [threading.Thread(target=work, args=(channel,), daemon=True) for channel in receiving]
        for thread in threads:
            thread.start()
        attempts = self._settings.attempts
        limit = attempts * self._settings.timeout.seconds + (attempts - 1) * _LONGEST_PAUSE + _GRACE_SECONDS
        deadline = time.monotonic() + limit
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        done = dict(found)
        return tuple(
            done.get(channel.name) or Delivery(channel.name, False, 1, f"did not end within {limit:g} s")
            for channel in receiving
        )

    def _write_down(
        self, record: Record, notification: Notification, withheld: bool, deliveries: tuple[Delivery, ...]
    ) -> Delivery:
        document = notification.to_json()
        entry = {
            **{name: document[name] for name in ("id", "at", "priority", "source", "host", "environment", "title")},
            "withheld": withheld,
            "notification": document,
            "deliveries": [asdict(delivery) for delivery in deliveries],
        }
        try:
            record.keep(entry)
        except (OSError, LocalError) as error:
            log.error("the record cannot be kept on the disk: %s", error)
        return self._attempts(record.name, lambda: record.deliver(self._settings.timeout.seconds))

    def _attempts(self, name: str, send: Callable[[], None]) -> Delivery:
        """Try until it is taken, refused for good, or tried often enough."""
        pause, most = _FIRST_PAUSE, self._settings.attempts
        for attempt in range(1, most + 1):
            try:
                send()
            except DeliveryError as error:
                reason = self._known.hidden(str(error))
                if error.final or attempt == most:
                    return Delivery(name, False, attempt, reason)
                log.warning("%s: %s, trying again", name, reason)
                self._sleep(min(error.retry_after or pause, _LONGEST_PAUSE))
                pause *= 2
            except Exception as error:
                # A library's own mistake must not keep the other channels from their work. Its text may hold anything.
                return Delivery(name, False, attempt, f"ended with {type(error).__name__}")
            else:
                return Delivery(name, True, attempt)
        raise AssertionError("attempts is at least 1")


class _Known:
    """The secrets that were asked for: whatever others say about us is cleaned of them."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._found: list[str] = []

    def get(self, name: str) -> SecretStr:
        value = self._secrets.get(name)
        # Shorter words are in every text.
        self._found += [word for word in value.get_secret_value().split() if len(word) >= _SHORTEST_HIDDEN]
        return value

    def hidden(self, text: str) -> str:
        for value in sorted(self._found, key=len, reverse=True):
            text = text.replace(value, "***")
        return text


def _open_record(settings: NotifySettings, secrets: Secrets, waiting: Path) -> Record | None:
    record = settings.record
    if record is None:
        return None
    try:
        password = secrets.get(record.password_secret) if record.password_secret else None
    except SecretError as error:
        raise NotifyError(
            f"the channel record is configured and has no credential: {error.message}", error.next_step
        ) from None
    return Record(record, password, waiting)
