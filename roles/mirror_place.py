"""Where the fleet's offline mirror is: what the host that serves it and those that use it agree on."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from rtinfra.facts.mirror import Release
from rtinfra.netloc import bracketed, netloc


@dataclass(frozen=True)
class MirrorPlace:
    """Where the mirror is: its host by name and address, its HTTPS port, its folder there."""

    host: str
    address: str
    port: int
    directory: str

    @property
    def ip(self) -> IPv4Address | IPv6Address | None:
        """Its IP address; None when it is reached by name."""
        try:
            return ip_address(self.address)
        except ValueError:
            return None

    @property
    def netloc_host(self) -> str:
        """Its address as it stands in URLs."""
        return bracketed(self.address)

    @property
    def netloc(self) -> str:
        """Address and port; the port always, since certificates of registries are looked up by this text."""
        return netloc(self.address, self.port)

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        return f"https://{self.netloc}"

    @property
    def live(self) -> str:
        """Folder of the live release on its host."""
        return f"{self.directory}/published/current"


@dataclass(frozen=True)
class Mirror:
    """The mirror that a host serves or uses, or both, and the release that was live when it was asked."""

    place: MirrorPlace
    is_served: bool
    is_used: bool
    """Whether the host gets everything from it: packages, wheels, images."""
    live: Release | None = None

    @property
    def is_needed(self) -> bool:
        """Whether it matters what it serves: the host serves it, or gets from it whatever is installed."""
        return self.is_served or self.is_used

    @property
    def release(self) -> Release:
        """The release that is live; only when the mirror is needed.

        Raises:
            TypeError: its host was not asked.
        """
        if self.live is None:
            raise TypeError(f"{self.place.host} was not asked what it serves")
        return self.live
