"""What an operator's own image is told at its first start: the small disk of cloud-init's data source NoCloud."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rtinfra.local import programs

#: The user of an operator's image: no password, sudo, as on the machines that such images are made for.
USER: Final = "ops"
# By which NoCloud knows its disk (cloud-init's documentation, "NoCloud").
_LABEL = "CIDATA"
# KiB of a disk that mformat has a shape for; the files are a few KiB.
_SIZE = 1440


@dataclass(frozen=True)
class Identity:
    """What makes a machine itself: name, who may log in, the key by which it is known, cards and their addresses."""

    name: str
    authorized_key: str
    host_key: str
    """The private one, as OpenSSH writes it."""
    host_public_key: str
    outside: str
    """Hardware address of the card that leads outside."""
    lan: str
    """Hardware address of the card on the lab's network."""
    lan_addresses: Sequence[str]
    apt_options: str
    """What apt needs here, such as a proxy, as a file of apt.conf.d."""


def files(identity: Identity) -> Mapping[str, str]:
    """The files of the disk by name. JSON is YAML."""
    user: dict[str, Any] = {
        "hostname": identity.name,
        "users": [
            {
                "name": USER,
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": True,  # nosec B105 - no login by password
                "ssh_authorized_keys": [identity.authorized_key],
            }
        ],
        "disable_root": True,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_genkeytypes": [],
        # The image's own sources stay as they are.
        "apt": {"preserve_sources_list": True, "conf": identity.apt_options},
        "ssh_keys": {"ed25519_private": identity.host_key, "ed25519_public": identity.host_public_key},
    }
    cards: dict[str, Any] = {"outside": {"match": {"macaddress": identity.outside}, "dhcp4": True}}
    if identity.lan_addresses:
        addresses = [f"{address}/24" for address in identity.lan_addresses]
        cards["lan"] = {"match": {"macaddress": identity.lan}, "addresses": addresses}
    return {
        "user-data": "#cloud-config\n" + _text(user),
        # cloud-init takes a machine with another one for a new machine.
        "meta-data": _text({"instance-id": f"lab-{identity.name}", "local-hostname": identity.name}),
        "network-config": _text({"version": 2, "ethernets": cards}),
    }


def write(path: Path, contents: Mapping[str, str]) -> None:
    """Write the disk: a FAT file system with these files, made without mounting it."""
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        disk = folder / "disk"
        programs.execute(["mformat", "-C", "-f", str(_SIZE), "-v", _LABEL, "-i", disk, "::"], timeout=60)
        for file, content in contents.items():
            (folder / file).write_text(content, encoding="utf-8")
        programs.execute(["mcopy", "-i", disk, *(folder / file for file in contents), "::"], timeout=60)
        # It holds the key by which the machine is known.
        disk.chmod(0o600)
        disk.rename(path)


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"
