"""What a mirror host serves and by which certificate, in one round trip."""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pyinfra.api.command import StringCommand
from typing_extensions import override

from rtinfra import openpgp
from rtinfra.facts import output_sections
from rtinfra.facts.output_sections import SectionsFact

#: Certificates and their keys on the mirror host.
CERTIFICATES = "/etc/rtinfra/mirror"

#: What a client remembers: the release its packages follow, and what was there before the mirror.
CLIENT_STATE = "/var/lib/rtinfra/mirror-client"
RECORD = f"{CLIENT_STATE}/release"
SET_ASIDE = f"{CLIENT_STATE}/set-aside"
#: Keys of mirrors that a client never believes again, a file for each: named by fingerprint. Going back to what was
#: before the mirror leaves them.
REFUSED = "/var/lib/rtinfra/mirror-refused"
#: Where apt reads sources from, sources.list(5).
SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources")
#: Asks openssl what `parse_certificate` reads.
ABOUT = "-noout -enddate -ext subjectAltName"

_RELEASE_LINE = re.compile(r"(Origin|Codename|Suite|Components|Architectures|Date|Valid-Until): (.+)")
_IMAGE_LINE = re.compile(
    r"(?P<repository>\S+)/_manifests/tags/(?P<tag>[^/\s]+)/current/link (?P<digest>sha256:[0-9a-f]{64})"
)
# rtinfra.mirror.trust writes it, on the mirror.
_REFUSED_LINE = re.compile(r"repository ([0-9A-F]{40}) \d{4}-\d{2}-\d{2}")
_DATE = "%a, %d %b %Y %H:%M:%S UTC"


@dataclass(frozen=True)
class Index:
    """The Release file of the mirror's package repository; times in UTC."""

    origin: str
    suite: str
    components: str
    architectures: tuple[str, ...]
    date: datetime
    valid_until: datetime | None


@dataclass(frozen=True)
class Release:
    """The release that is live: its name, its repository's key and index, and its images.

    `images` are digests by repository and tag of its registry.
    """

    name: str
    key: bytes = field(repr=False)
    index: Index
    images: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Of the keys in `key`.

        Raises:
            ValueError: it is anything else than public keys.
        """
        return openpgp.fingerprints(self.key)


@dataclass(frozen=True)
class Certificate:
    """A certificate: its PEM text, when it ends, and the names and addresses it is for."""

    pem: bytes = field(repr=False)
    ends: datetime
    names: frozenset[str]


@dataclass(frozen=True)
class MirrorState:
    """A mirror host. `release` is None when none is published, certificates are None before they are made.

    `is_trusted` tells that the server's certificate is signed by the authority and belongs to its key. `refused` are
    the fingerprints of keys of its repository that were given up.
    """

    clock: datetime
    release: Release | None
    authority: Certificate | None
    server: Certificate | None
    is_trusted: bool
    refused: tuple[str, ...] = ()


def normalised(name: str) -> str:
    """Return a DNS name or IP address in the one form that comparisons use."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def parse_index(lines: Iterable[str]) -> Index | None:
    """Read the fields of a Release or InRelease file; None when it is none."""
    found = {match[1]: match[2].strip() for line in lines if (match := _RELEASE_LINE.fullmatch(line.rstrip()))}
    suite = found.get("Codename") or found.get("Suite")
    date = _moment(found.get("Date", ""))
    if suite is None or date is None or "Components" not in found:
        return None
    return Index(
        origin=found.get("Origin", ""),
        suite=suite,
        components=found["Components"],
        architectures=tuple(found.get("Architectures", "").split()),
        date=date,
        valid_until=_moment(found.get("Valid-Until", "")),
    )


def parse_mirror_state(lines: Iterable[str], marker: str = output_sections.MARKER) -> MirrorState:
    """Build a MirrorState from the fact's output."""
    found = output_sections.parse(lines, marker)
    return MirrorState(
        clock=datetime.fromtimestamp(int("".join(found.get("clock", [])) or 0), UTC),
        release=_release(found),
        authority=parse_certificate(found.get("authority", []), found.get("authority_text", [])),
        server=parse_certificate(found.get("server", []), found.get("server_text", [])),
        is_trusted="".join(found.get("trusted", [])).strip() == "yes",
        refused=tuple(match[1] for line in found.get("refused", []) if (match := _REFUSED_LINE.fullmatch(line))),
    )


def _moment(text: str) -> datetime | None:
    try:
        # RFC 2822 as Release files write it, https://wiki.debian.org/DebianRepository/Format
        return datetime.strptime(text.replace("+0000", "UTC").replace("GMT", "UTC"), _DATE).replace(tzinfo=UTC)
    except ValueError:
        return None


def _release(found: Mapping[str, list[str]]) -> Release | None:
    try:
        name = json.loads("\n".join(found.get("release", []))).get("name")
    except (ValueError, AttributeError, RecursionError):
        return None
    index, key = parse_index(found.get("index", [])), "\n".join(found.get("key", [])).strip()
    if not isinstance(name, str) or index is None or not key:
        return None
    images = (_IMAGE_LINE.fullmatch(line.strip()) for line in found.get("images", []))
    return Release(
        name=name,
        key=f"{key}\n".encode(),
        index=index,
        images={(match["repository"], match["tag"]): match["digest"] for match in images if match},
    )


def parse_certificate(pem: Sequence[str], text: Sequence[str]) -> Certificate | None:
    """Read a PEM certificate and what `openssl x509 ABOUT` says of it; None when it says nothing."""
    ends = next((line.partition("=")[2] for line in text if line.startswith("notAfter=")), "")
    if not pem or not ends:
        return None
    names = re.findall(r"(?:DNS|IP Address):([^,\s]+)", "\n".join(text))
    moment = datetime.strptime(re.sub(r"\s+", " ", ends), "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    return Certificate("".join(f"{line}\n" for line in pem).encode(), moment, frozenset(map(normalised, names)))


class LiveMirror(SectionsFact[MirrorState]):
    """State of the mirror in a folder of the host, as its published release and its certificates tell."""

    @override
    def command(self, directory: str) -> StringCommand:
        live = f"{shlex.quote(directory)}/published/current"
        about = f"openssl x509 {ABOUT} -in"
        authority, server = f"{CERTIFICATES}/authority.crt", f"{CERTIFICATES}/server.crt"
        return self.asking(
            {
                "clock": "date +%s",
                "release": f"cat {live}/release.json; echo",
                "key": f"cat {live}/key.asc",
                "refused": f"cat {shlex.quote(directory)}/keys/refused_keys",
                # The head of the index alone: what follows are the checksums of its files.
                "index": f"sed -n '/^[A-Z][A-Za-z0-9-]*: ./p' {live}/apt/dists/*/InRelease",
                # Files of the registry's own, one for each tag, without a line break at their end.
                "images": (
                    f"cd {live}/registry/docker/registry/v2/repositories && for f in "
                    '*/*/_manifests/tags/*/current/link; do d=; read -r d <"$f"; echo "$f $d"; done'
                ),
                "authority": f"cat {authority}",
                "authority_text": f"{about} {authority}",
                "server": f"cat {server}",
                "server_text": f"{about} {server}",
                "trusted": (
                    f"openssl verify -CAfile {authority} {server} >&2 && "
                    f'test "$(openssl x509 -noout -pubkey -in {server})" = '
                    f'"$(openssl pkey -pubout -in {CERTIFICATES}/server.key)" && echo yes'
                ),
            }
        )

    @override
    def process(self, output: list[str]) -> MirrorState:
        return parse_mirror_state(output, self.marker)
