"""Typed settings of the `packet_filter` role (L-15)."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from rtinfra.config.host_types import IpNetwork, PackageName
from rtinfra.config.sections import EVERY_HOST, Section
from rtinfra.config.types import Port, Settings


class OpenPortSettings(Settings):
    """A port that is open beyond what follows from the fleet."""

    port: Port
    protocol: Literal["tcp", "udp"]
    networks: tuple[IpNetwork, ...] = Field(min_length=1, description="who may reach it")


class PacketFilterSettings(Settings):
    """Settings of the `packet_filter` role."""

    enabled: bool = Field(description="false: the table is taken away")
    default: Literal["accept", "drop"] = Field(description="what becomes of packets to ports that are not ours")
    ssh_from: tuple[IpNetwork, ...] = Field(description="who may log in")
    pages_from: tuple[IpNetwork, ...] = Field(description="who may look at pages for people")
    also_from: tuple[IpNetwork, ...] = Field(description="further addresses this host has when it talks to others")
    also_open: tuple[OpenPortSettings, ...]
    packages: tuple[PackageName, ...]


#: Key to the settings of this role.
PACKET_FILTER: Final = Section("packet_filter", PacketFilterSettings, EVERY_HOST)
