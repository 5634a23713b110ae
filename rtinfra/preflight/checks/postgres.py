"""PostgreSQL: connect, SELECT 1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from rtinfra.preflight.check import Check, Context, Result, Status, Stopwatch, timed
from rtinfra.preflight.settings import CheckSettings, PostgresSettings

_LOOK = "see `systemctl status postgresql` and its log on its host, and whether a firewall is between"


def checks(settings: CheckSettings) -> Iterator[Check]:
    """One check, when a PostgreSQL is named."""
    postgres = settings.postgres
    if postgres is not None:
        yield Check(
            "postgres",
            partial(_run, postgres),
            ("psycopg",),
            histogram="realcheck_postgres_latency_seconds",
        )


def _run(settings: PostgresSettings, context: Context) -> Result:
    import psycopg

    password = context.secrets.get(settings.password_secret) if settings.password_secret else None
    watch = Stopwatch()
    try:
        with (
            watch.running(),
            psycopg.connect(
                settings.conninfo,
                password=password.get_secret_value() if password else None,
                # Whole seconds, and libpq takes less than two for two.
                connect_timeout=math.ceil(context.timeout),
                application_name="rtinfra-preflight",
                options=f"-c statement_timeout={math.ceil(context.timeout * 1000)}",
                autocommit=True,
            ) as connection,
        ):
            connection.execute("SELECT 1").fetchone()
    except psycopg.Error as error:
        return Result(Status.FAIL, f"no answer to SELECT 1: {_first_line(error)}", _LOOK)
    return timed("SELECT 1", watch.seconds, settings.slow.seconds, f"it works and is slow: {_LOOK}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
