"""A made-up mirror: where it is, what its host answers, and what a healthy client and server of it look like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from roles.host import HostConfig
from roles.mirror_client.role import IMAGES, KEY, REPOSITORY, SOURCE, image_policy
from roles.mirror_place import MirrorPlace
from roles.mirror_server.model import MIRROR_SERVER, REGISTRY_UNIT, WEB_UNIT
from roles.mirror_server.role import names
from rtinfra.facts.mirror import Certificate, Index, MirrorState, Release
from rtinfra.verify.look.mirror_client import pip_required
from rtinfra.verify.look.mirror_server import requests

PLACE = MirrorPlace(host="mirror", address="192.0.2.5", port=443, directory="/srv/rtinfra-mirror")
NAME = "20260101T000000Z-0123456789abcdef"
NOW = datetime(2026, 1, 10, 12, 0, tzinfo=UTC)
INDEX = Index(
    origin="rtinfra",
    suite="trixie",
    components="main",
    architectures=("amd64",),
    date=datetime(2026, 1, 1, tzinfo=UTC),
    valid_until=datetime(2026, 6, 30, tzinfo=UTC),
)
#: A key that gpg made, and its fingerprint; nobody has the private half.
KEY_TEXT = """-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEXgvhABYJKwYBBAHaRw8BAQdA4wl8FbtzIthZzH+l9r8YZCtrv+P3qyPa+qz8
1h6xKfi0DnJ0aW5mcmEgbWlycm9yiJAEExYIADgWIQQPiyX8m8AwMXgIABOW6lP1
AeGw5wUCXgvhAAIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRCW6lP1AeGw
50pVAP9Kj/bqVKnY7ACM5vA3cX2tXBdSut4bguLz9F/DDSQ7dAD9Euz3R+pP4xjL
fZl/oSfJHZxSQACXolt+Te7nOHARqQQ=
=wHMp
-----END PGP PUBLIC KEY BLOCK-----"""
FINGERPRINT = "0F8B25FC9BC030317808001396EA53F501E1B0E7"
PEM = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
LIVE = MirrorState(
    clock=NOW,
    release=Release(name=NAME, key=f"{KEY_TEXT}\n".encode(), index=INDEX),
    authority=Certificate(PEM, NOW + timedelta(days=7000), frozenset()),
    server=Certificate(PEM, NOW + timedelta(days=800), frozenset({"192.0.2.5", "mirror"})),
    is_trusted=True,
)


def release_lines(date: datetime, valid_until: datetime) -> list[str]:
    """The fields of a Release file."""
    return [
        "Origin: rtinfra",
        "Label: rtinfra",
        "Suite: trixie",
        "Codename: trixie",
        f"Date: {date:%a, %d %b %Y %H:%M:%S} UTC",
        f"Valid-Until: {valid_until:%a, %d %b %Y %H:%M:%S} UTC",
        "Architectures: amd64",
        "Components: main",
    ]


def served_answer(has_certificates: bool = True) -> list[str]:
    """What the mirror's host answers to the fact about it, with its certificates or before they are made."""
    assert INDEX.valid_until is not None
    pem = PEM.decode().strip().splitlines()
    alternatives = "    IP Address:192.0.2.5, DNS:mirror"
    certificates = [
        *("@@authority", *pem, "@@authority_text", "notAfter=Jan  1 00:00:00 2040 GMT"),
        *("@@server", *pem, "@@server_text", "notAfter=Jan  1 00:00:00 2029 GMT", alternatives, "@@trusted", "yes"),
    ]
    return [
        *("@@clock", str(int(NOW.timestamp())), "@@release", json.dumps({"name": NAME}), "@@key", KEY_TEXT),
        *("@@index", *release_lines(INDEX.date, INDEX.valid_until), *(certificates if has_certificates else ())),
    ]


def client_answer(place: MirrorPlace, config: HostConfig, now: datetime) -> Iterator[str]:
    """What a healthy client answers to rtinfra.verify.look.mirror_client."""
    own = config.get(MIRROR_SERVER) is not None
    repository = f"file:{place.live}/apt/" if own else f"{place.url}/apt/"
    yield from ("@@mirror_files", SOURCE)
    yield from ("@@mirror_targets", f"{repository} {KEY}", f"{repository} {KEY}")
    yield "@@mirror_options"
    yield from (f'Acquire::{name} "true";' for name in ("Check-Valid-Until", "Check-Date"))
    yield 'Acquire::AllowInsecureRepositories "false";'
    yield from (f'APT::{name} "false";' for name in ("Get::AllowUnauthenticated", "Install-Recommends"))
    yield from ("@@mirror_fresh", "@@mirror_update", "status 0", "@@mirror_index", "Hash: SHA512", "")
    yield from release_lines(now - timedelta(days=1), now + timedelta(days=150))
    yield from ("SHA256:", f" {'0' * 64} 7 main/binary-amd64/Packages", "@@mirror_versions")
    yield from (
        "@@mirror_live",
        json.dumps({"name": NAME}),
        "@@mirror_live_key",
        KEY_TEXT,
        "",
        "@@mirror_key",
        KEY_TEXT,
    )
    yield from ("@@mirror_recorded", NAME, "@@mirror_pip")
    yield from (f"{key} = {value}" for key, values in pip_required(place).items() for value in values)
    registries = {IMAGES: {"Prefix": IMAGES, "Location": f"{place.netloc}/{REPOSITORY}"}}
    yield from ("@@mirror_registries", json.dumps(registries), "@@mirror_policy", json.dumps(image_policy()))


def server_answer(place: MirrorPlace, config: HostConfig, now: datetime) -> Iterator[str]:
    """What a healthy server answers to rtinfra.verify.look.mirror_server."""
    settings = config[MIRROR_SERVER]
    assert settings is not None
    alternatives = ", ".join(
        f"{'IP Address' if name[0].isdigit() else 'DNS'}:{name}" for name in names(settings, place)
    )
    yield "@@mirror_certificate"
    yield f"notAfter={now + timedelta(days=800):%b %d %H:%M:%S %Y} GMT"
    yield from ("X509v3 Subject Alternative Name: ", f"    {alternatives}")
    release = json.dumps({"name": NAME, "date": "2026-01-01T00:00:00Z"})
    yield from ("@@mirror_release", "HTTP/1.1 200 OK\r", "Server: nginx\r", "\r", release)
    yield from ("@@mirror_registry", "HTTP/1.1 200 OK\r", "\r", "{}")
    yield from ("@@mirror_upload", "HTTP/1.1 405 Not Allowed\r", "\r", "<html>")
    yield from ("@@mirror_listening", f"0.0.0.0:{place.port}", f"127.0.0.1:{settings.registry_port}", "0.0.0.0:22")
    yield from ("@@mirror_private", "600 root /etc/rtinfra/mirror/authority.key", "700 root /srv/rtinfra-mirror/keys")
    yield from ("@@mirror_published", release, json.dumps({"name": "older", "date": "2025-01-01T00:00:00Z"}), release)
    yield "@@http_mirror"
    for request, status in zip(requests(place, settings.registry_port), (400, 200, 405), strict=True):
        yield from (f"@http {request.method} {request.url} {status} 3 1", "")


def server_units() -> list[str]:
    """The units of a healthy server, as systemctl shows them."""
    return [f"Id={unit}\nActiveState=active\nUnitFileState=enabled\n" for unit in (WEB_UNIT, REGISTRY_UNIT)]
