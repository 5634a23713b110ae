"""How this computer asks web servers: as its apt is configured, on connections that are kept.

That is by its proxies, with its logins, believing its authorities.

On http.client itself: where an archive is near, the processor is the limit, and anything around it costs more than
comparing what arrives.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse, HTTPSConnection
from pathlib import Path
from urllib.parse import SplitResult, unquote, urljoin, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from rtinfra.local.archive import Archive
from rtinfra.mirror.errors import MirrorError

_SCHEMES = ("http", "https")
_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTIONS = 20


class WebError(Exception):
    """There is no answer, or no more of it; the text says why, in plain words."""


class Proxies:
    """What stands between here and web servers.

    Args:
        options: of apt, by name.

    Raises:
        MirrorError: a proxy is configured that is asked in another way than by http.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        self._environment = getproxies_environment()
        self._proxies: dict[str, SplitResult | None] = {}
        self._of_apt: set[str] = set()
        for scheme in _SCHEMES:
            of_environment = self._environment.get(scheme) or self._environment.get("all", "")
            proxy = options.get(f"Acquire::{scheme}::Proxy") or of_environment
            self._proxies[scheme] = _parsed(scheme, proxy)
            if proxy != of_environment:
                self._of_apt.add(scheme)

    def before(self, place: SplitResult) -> SplitResult | None:
        """Return the proxy to be asked instead of a place; None: the place itself."""
        # The exceptions in the environment (no_proxy) are about its proxies, not about apt's own.
        if place.scheme not in self._of_apt and proxy_bypass(place.hostname or "", self._environment):
            return None
        return self._proxies[place.scheme]


class Answer:
    """What a server says, its body still to be read."""

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response
        self.status: int = response.status
        self.reason: str = response.reason
        self.headers: HTTPMessage = response.headers

    def read(self, most: int) -> bytes:
        """Return what has arrived of the body, once anything has; empty at its end.

        Raises:
            WebError: the connection broke, or is silent.
        """
        with _plain():
            return self._response.read1(most)


class Web:
    """Asks web servers; for one thread.

    Args:
        archive: whose logins and authorities count.
        proxies: what stands between.
        silence: seconds without a single byte after which a server is given up.
    """

    def __init__(self, archive: Archive, proxies: Proxies, silence: float) -> None:
        self._logins = archive.logins
        self._authorities = dict(archive.authorities)
        self._proxies = proxies
        self._silence = silence
        self._connections: dict[tuple[str, str], HTTPConnection] = {}

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections.values():
            connection.close()

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        """Give the answer to a question.

        Raises:
            WebError: there is none.
        """
        # A server that compresses would give other bytes.
        headers = {"Accept-Encoding": "identity", "User-Agent": "rtinfra", **headers}
        for _ in range(_MOST_REDIRECTIONS):
            connection, response = self._ask(urlsplit(url), headers)
            try:
                url = urljoin(url, response.getheader("Location", ""))
                if response.status not in _REDIRECTIONS or urlsplit(url).scheme not in _SCHEMES:
                    yield Answer(response)
                    return
            finally:
                # A connection is of further use when nothing is left in it.
                if response.length == 0:
                    response.close()
                else:
                    connection.close()
        raise WebError("it only ever sends on to another place")

    def _ask(self, place: SplitResult, headers: Mapping[str, str]) -> tuple[HTTPConnection, HTTPResponse]:
        proxy = self._proxies.before(place)
        connection = self._connection(place, proxy)
        headers = {**headers, **self._login("Authorization", place)}
        target = place._replace(scheme="", netloc="", fragment="").geturl() or "/"
        if proxy and place.scheme == "http":
            target = place._replace(netloc=_host(place), fragment="").geturl()
            headers |= self._login("Proxy-Authorization", proxy)
        kept = connection.sock is not None
        if not kept:
            try:
                connection.connect()
            except (OSError, HTTPException) as error:
                connection.close()
                raise WebError(f"it cannot be reached ({_words(error)})") from error
        try:
            with _plain():
                connection.request("GET", target, headers=headers)
                return connection, connection.getresponse()
        except WebError as error:
            connection.close()
            # Servers hang up on those who kept silent for some time: this says nothing about the question.
            if kept and isinstance(error.__cause__, ConnectionError):
                return self._ask(place, headers)
            raise

    def _connection(self, place: SplitResult, proxy: SplitResult | None) -> HTTPConnection:
        key = (place.scheme, place.netloc)
        if key not in self._connections:
            self._connections[key] = self._new_connection(place, proxy)
        return self._connections[key]

    def _new_connection(self, place: SplitResult, proxy: SplitResult | None) -> HTTPConnection:
        host = _host(proxy or place)
        if place.scheme == "http":
            return HTTPConnection(host, timeout=self._silence)
        file = self._authorities.get(place.hostname or "", self._authorities.get(""))
        connection = HTTPSConnection(host, timeout=self._silence, context=authorities(file))
        if proxy:
            connection.set_tunnel(place.hostname or "", place.port or 443, self._login("Proxy-Authorization", proxy))
        return connection

    def _login(self, header: str, place: SplitResult) -> dict[str, str]:
        """Return the header that tells name and password: those in the address, or else those that apt has for it."""
        if place.username is not None:
            words = f"{unquote(place.username)}:{unquote(place.password or '')}"
        elif (login := next((one for one in self._logins if one.is_for(place)), None)) is not None:
            words = f"{login.name}:{login.password}"
        else:
            return {}
        return {header: f"Basic {base64.b64encode(words.encode()).decode()}"}


@cache
def authorities(file: Path | None) -> ssl.SSLContext:
    """Return those in a file, or those that this computer trusts. Reading them takes long: once, and only when needed.

    Raises:
        MirrorError: the file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:
        raise MirrorError(
            f"the certificate authorities in {file} cannot be read: {_words(error)}",
            "correct Acquire::https::CaInfo in /etc/apt/apt.conf.d",
        ) from error


def _host(place: SplitResult) -> str:
    """With its port."""
    return place.netloc.rpartition("@")[2]


def _parsed(scheme: str, proxy: str) -> SplitResult | None:
    if proxy in ("", "DIRECT"):
        return None
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http":
        raise MirrorError(
            f"the proxy for {scheme} is {parts.scheme}://{parts.hostname}; one that starts with http:// is expected",
            f"name another one in /etc/apt/apt.conf.d as Acquire::{scheme}::Proxy, or DIRECT there to use none",
        )
    return parts


@contextmanager
def _plain() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise WebError("it fell silent") from error
    except (OSError, HTTPException) as error:
        raise WebError(f"the connection broke ({_words(error)})") from error


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
