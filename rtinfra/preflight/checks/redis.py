"""Redis: connect, PING."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from rtinfra.preflight.check import Check, Context, Result, Status, Stopwatch, timed
from rtinfra.preflight.settings import CheckSettings, RedisSettings

_LOOK = "see `systemctl status redis-server` on its host, and whether a firewall is between"


def checks(settings: CheckSettings) -> Iterator[Check]:
    """One check, when a Redis is named."""
    redis = settings.redis
    if redis is not None:
        yield Check("redis", partial(_run, redis), ("redis",), histogram="realcheck_redis_latency_seconds")


def _run(settings: RedisSettings, context: Context) -> Result:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import AuthenticationError, RedisError
    from redis.retry import Retry

    password = context.secrets.get(settings.password_secret) if settings.password_secret else None
    client = Redis.from_url(
        settings.url,
        username=settings.username,
        password=password.get_secret_value() if password else None,
        socket_timeout=context.timeout,
        socket_connect_timeout=context.timeout,
        # Once: a second try would hide what the application is about to meet.
        retry=Retry(NoBackoff(), 0),
    )
    watch = Stopwatch()
    try:
        with client, watch.running():
            client.ping()
    except AuthenticationError:
        name = settings.password_secret or "password_secret"
        return Result(Status.FAIL, f"{settings.url} refuses the password", f"correct the secret {name}")
    except (RedisError, OSError) as error:
        return Result(Status.FAIL, f"{settings.url} does not answer PING: {error}", _LOOK)
    return timed(settings.url, watch.seconds, settings.slow.seconds, f"it works and is slow: {_LOOK}")
