"""How this computer asks web servers: over connections that are kept, on the way that its apt is configured with."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ProxyError, SSLError, TimeoutError
from urllib3.util import Url, parse_url

from rtinfra.mirror.errors import MirrorError

_MOST_REDIRECTIONS = 20


class Web:
    """Asks web servers, from several threads.

    Args:
        options: of apt, by name.
        connections: how many are kept to one server.
        silence: seconds without a single byte after which a server is given up.

    Raises:
        MirrorError: a proxy is configured that is none for the web.
    """

    def __init__(self, options: Mapping[str, str], connections: int, silence: float) -> None:
        self._environment = getproxies_environment()
        self._proxies: dict[str, Url | None] = {}
        self._of_apt: set[str] = set()
        for scheme in ("http", "https"):
            of_environment = self._environment.get(scheme) or self._environment.get("all", "")
            proxy = options.get(f"Acquire::{scheme}::Proxy") or of_environment
            self._proxies[scheme] = _parsed(scheme, proxy)
            if proxy != of_environment:
                self._of_apt.add(scheme)
        self._connections = connections
        self._silence = silence
        self._ways: dict[tuple[str, Url | None], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def get(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """Return the answer to a question, its body still to be read; whoever does not read it all closes it.

        Raises:
            HTTPError: there is none.
        """
        # A server that compresses would give other bytes.
        headers = {"Accept-Encoding": "identity", "User-Agent": "rtinfra", **headers}
        for _ in range(_MOST_REDIRECTIONS):
            response = self._way(url).request(
                "GET", url, headers=headers, redirect=False, retries=False, preload_content=False, decode_content=False
            )
            place = response.get_redirect_location()
            if not place:
                break
            response.close()
            url = urljoin(url, place)
        return response

    def _way(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        way = (parts.scheme, self._proxy(parts.scheme, parts.hostname or ""))
        with self._lock:
            if way not in self._ways:
                self._ways[way] = self._opened(*way)
            return self._ways[way]

    def _proxy(self, scheme: str, host: str) -> Url | None:
        # The exceptions in the environment (no_proxy) are about its proxies, not about apt's own.
        if scheme not in self._of_apt and proxy_bypass(host, self._environment):
            return None
        return self._proxies.get(scheme)

    def _opened(self, scheme: str, proxy: Url | None) -> urllib3.PoolManager:
        # The authorities that this computer trusts, as apt does; reading them takes long, so once, and only if needed.
        context = ssl.create_default_context() if "https" in (scheme, proxy and proxy.scheme) else None
        timeout = urllib3.Timeout(connect=self._silence, read=self._silence)
        if proxy is None:
            return urllib3.PoolManager(maxsize=self._connections, timeout=timeout, ssl_context=context)
        login = urllib3.make_headers(proxy_basic_auth=unquote(proxy.auth)) if proxy.auth else None
        return urllib3.ProxyManager(
            proxy._replace(auth=None).url,
            maxsize=self._connections,
            timeout=timeout,
            ssl_context=context,
            proxy_ssl_context=context,
            proxy_headers=login,
        )


def _parsed(scheme: str, proxy: str) -> Url | None:
    """The address of a proxy as it is configured; None for none."""
    if proxy in ("", "DIRECT"):
        return None
    address = parse_url(proxy if "://" in proxy else f"http://{proxy}")
    if address.scheme not in ("http", "https"):
        raise MirrorError(
            f"the proxy for {scheme} is {address._replace(auth=None).url}; one that starts with http:// is expected",
            f"name another one in /etc/apt/apt.conf.d as Acquire::{scheme}::Proxy, or DIRECT there to use none",
        )
    return address


def plain(error: HTTPError) -> str:
    """Say in plain words why there is no answer, or no more of it."""
    reason: BaseException = error
    while cause := reason.__cause__ or reason.__context__:
        reason = cause
    words = (reason.strerror if isinstance(reason, OSError) else None) or str(reason)
    if isinstance(error, ConnectTimeoutError | ProxyError | SSLError):
        return f"it cannot be reached ({words})"
    if isinstance(error, TimeoutError):
        return "it fell silent"
    return f"the connection broke ({words})"
