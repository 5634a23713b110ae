"""Every notification in PostgreSQL. While that is away they wait in a file and are written down later."""

from __future__ import annotations

import json
import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from rtinfra.local.file_lock import locked
from rtinfra.local.files import replace_file
from rtinfra.notify.errors import DeliveryError
from rtinfra.notify.settings import RecordSettings

_EXISTS = "SELECT to_regclass('rtinfra_notifications')"
_CREATE = """CREATE TABLE IF NOT EXISTS rtinfra_notifications (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    priority text NOT NULL,
    source text NOT NULL,
    host text NOT NULL,
    environment text NOT NULL,
    title text NOT NULL,
    withheld boolean NOT NULL,
    notification jsonb NOT NULL,
    deliveries jsonb NOT NULL
)"""
# An entry that was written just before a crash is not written twice.
_INSERT = """INSERT INTO rtinfra_notifications VALUES (%(id)s, %(at)s, %(priority)s, %(source)s, %(host)s,
    %(environment)s, %(title)s, %(withheld)s, %(notification)s, %(deliveries)s) ON CONFLICT (id) DO NOTHING"""
_LOCK_SECONDS = 10.0
# More waiting entries than this are a data base that nobody misses.
_MOST_WAITING = 10_000


class Record:
    """The table of notifications. `waiting` is the file of those that are not in it yet."""

    name = "record"

    def __init__(self, settings: RecordSettings, password: SecretStr | None, waiting: Path) -> None:
        self._settings = settings
        self._password = password
        self._waiting = waiting

    def keep(self, entry: dict[str, Any]) -> None:
        """Put an entry into the file: from here on it cannot be lost."""
        with self._locked():
            lines = [*self._lines(), json.dumps(entry, ensure_ascii=False)][-_MOST_WAITING:]
            self._write(lines)

    def deliver(self, timeout: float) -> None:
        """Write all waiting entries to the data base.

        Raises:
            DeliveryError: it does not take them; they go on waiting.
        """
        import psycopg
        from psycopg.types.json import Json

        with self._locked():
            lines = self._lines()
        try:
            with psycopg.connect(
                self._settings.conninfo,
                password=self._password.get_secret_value() if self._password else None,
                connect_timeout=math.ceil(timeout),
                application_name="rtinfra-notify",
                options=f"-c statement_timeout={math.ceil(timeout * 1000)} -c client_min_messages=warning",
            ) as connection:
                # Asked first: creating takes a right that is not needed any more once the table is there.
                if connection.execute(_EXISTS).fetchone() == (None,):
                    connection.execute(_CREATE)
                for line in lines:
                    entry = json.loads(line)
                    for column in ("notification", "deliveries"):
                        entry[column] = Json(entry[column])
                    connection.execute(_INSERT, entry)
        except psycopg.Error as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DeliveryError(f"PostgreSQL did not take it: {reason}") from None
        # Not locked meanwhile, since the data base may be slow: others may have added some.
        with self._locked():
            done = set(lines)
            self._write([line for line in self._lines() if line not in done])

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self._waiting.with_suffix(".lock"), "recording notifications", _LOCK_SECONDS)

    def _lines(self) -> list[str]:
        try:
            text = self._waiting.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [line for line in text.split("\n") if line]

    def _write(self, lines: list[str]) -> None:
        replace_file(self._waiting, "".join(f"{line}\n" for line in lines).encode(), mode=0o600)
