"""A GET request as part of a check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr

from rtinfra.preflight.check import Context, Result, Status, Stopwatch, timed

if TYPE_CHECKING:
    import ssl


def ask(
    url: str,
    context: Context,
    *,
    status: int,
    slow: float,
    next_step: str,
    token: SecretStr | None = None,
    ca_file: str | None = None,
) -> Result:
    """Ask a URL and judge its status and time (`slow`, in seconds).

    Nothing is followed and no proxy of the environment is used: what is checked is this address.
    """
    import httpx

    watch = Stopwatch()
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    # Certificates are only loaded where they are needed: that costs more than all the rest.
    verify = _tls(ca_file) if url.startswith("https:") else False
    try:
        with httpx.Client(timeout=context.timeout, trust_env=False, verify=verify) as client, watch.running():
            answer = client.get(url, headers=headers)
    except httpx.TimeoutException:
        return Result(Status.FAIL, f"{url} did not answer within {context.timeout:g} s", next_step)
    except (httpx.HTTPError, OSError) as error:
        return Result(Status.FAIL, f"{url} cannot be asked: {error}", next_step)
    if answer.status_code != status:
        return Result(Status.FAIL, f"{url} answered {answer.status_code}, expected {status}", next_step)
    return timed(url, watch.seconds, slow, f"it works and is slow: {next_step}")


def _tls(ca_file: str | None) -> ssl.SSLContext:
    import ssl

    return ssl.create_default_context(cafile=ca_file)
