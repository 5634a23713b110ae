"""Host and port as one text: the only place where `host:port`, URLs and the brackets of IPv6 are made."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


def bracketed(host: str) -> str:
    """Return a host as it stands before a port: an IPv6 address in brackets (RFC 3986, section 3.2.2)."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    # A zone (fe80::1%eth0) is for this host alone and written with %25 in URLs (RFC 6874).
    return f"[{host.replace('%', '%25')}]" if isinstance(address, IPv6Address) else host


def netloc(host: str, port: int) -> str:
    """Return `host:port`."""
    return f"{bracketed(host)}:{port}"


def url(host: str, port: int, path: str = "", scheme: str = "http") -> str:
    """Return a URL; `path` begins with a slash or is empty."""
    return f"{scheme}://{netloc(host, port)}{path}"
