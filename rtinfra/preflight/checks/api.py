"""HTTP services that the application depends on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from rtinfra.preflight.check import Check, Context, Result
from rtinfra.preflight.http_get import ask
from rtinfra.preflight.settings import ApiSettings, CheckSettings


def checks(settings: CheckSettings) -> Iterator[Check]:
    """One check for each service."""
    for api in settings.apis:
        yield Check(f"api:{api.name}", partial(_run, api), ("httpx",))


def _run(api: ApiSettings, context: Context) -> Result:
    return ask(
        api.url,
        context,
        status=api.status,
        slow=api.slow.seconds,
        token=context.secrets.get(api.token_secret) if api.token_secret else None,
        ca_file=str(api.ca_file) if api.ca_file else None,
        next_step=f"see whether {api.name} runs and is reachable from this host",
    )
