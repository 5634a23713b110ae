"""The offline mirror as its clients and its server see it: what to ask for, and the answers, typed.

Nothing on the host is changed: a client's apt works with lists of its own in a temporary folder.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from roles.mirror_client.role import AUTHORITY, IMAGE_POLICY, KEY
from roles.mirror_place import MirrorPlace
from rtinfra.facts import http, sections
from rtinfra.facts.http import Request, loopback
from rtinfra.facts.mirror import (
    ABOUT,
    CERTIFICATES,
    RECORD,
    SOURCES,
    Certificate,
    Index,
    parse_certificate,
    parse_index,
)

#: A push to the registry begins with a POST to this.
UPLOAD: Final = "/v2/rtinfra/check/blobs/uploads/"
#: Options of apt that decide what it believes.
APT_OPTIONS: Final = (
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::AllowInsecureRepositories",
    "APT::Get::AllowUnauthenticated",
    "APT::Install-Recommends",
)
_PIP_FILES = "/etc/xdg/pip/pip.conf /etc/pip.conf /root/.pip/pip.conf /root/.config/pip/pip.conf"
_PIP_KEYS = "index-url|extra-index-url|find-links|trusted-host|cert"
_SECONDS = 60


@dataclass(frozen=True)
class MirrorQuestions:
    """What a host has to do with the mirror: uses it, serves it, or both; and the port of its registry."""

    place: MirrorPlace
    is_client: bool
    registry_port: int | None
    """Set on the host that serves it."""


@dataclass(frozen=True)
class Target:
    """An index file that apt would use: where its repository is and the key that has to sign it."""

    repository: str
    signed_by: str


@dataclass(frozen=True)
class MirrorClientSeen:
    """A client. `updated` is apt's exit status with `errors` of a fresh look at its sources; `index` what that brought.

    `off_version` are packages that apt would install, upgrade, downgrade or remove to be at the mirror's versions.
    `live` and `live_key` are the mirror's release and key as it serves them now, `key` the one the host trusts.
    """

    source_files: tuple[str, ...]
    targets: tuple[Target, ...]
    options: Mapping[str, str]
    updated: int | None
    errors: tuple[str, ...]
    index: Index | None
    off_version: tuple[str, ...]
    live: str | None
    live_key: str = field(repr=False)
    key: str = field(repr=False)
    recorded: str
    pip: Mapping[str, tuple[str, ...]]
    registries: Mapping[str, Any] | None
    """What Podman says of its registries; None without Podman."""
    image_policy: Mapping[str, Any]


@dataclass(frozen=True)
class MirrorServerSeen:
    """The server: what it answers over TLS to those who know its authority, and what is on its disk."""

    certificate: Certificate | None
    release: tuple[str, Mapping[str, Any]]
    """Status line and content of release.json."""
    registry: str
    upload: str
    """Status lines of the registry, and of an attempt to push to it."""
    listening: tuple[str, ...]
    private: Mapping[str, str]
    """Mode and owner of private keys, and of the folder with the key that signs packages."""
    published: tuple[Mapping[str, Any], ...]


def commands(asked: MirrorQuestions) -> Mapping[str, str]:
    """Return the commands of the sections that `parse_client` and `parse_server` read."""
    found: dict[str, str] = {}
    if asked.is_client:
        found |= _client(asked.place, asked.registry_port is not None)
    if asked.registry_port is not None:
        found |= _server(asked.place, asked.registry_port)
    return found


def _client(place: MirrorPlace, is_same_host: bool) -> Mapping[str, str]:
    # Lists of its own, no cache: what the host has is neither used nor changed.
    apt = (
        "-o Dir::State::lists=$t/lists -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Debug::NoLocking=1 "
        "-o APT::Sandbox::User=root"
    )

    def fetch(name: str) -> str:
        if is_same_host:
            return f"cat {shlex.quote(place.live)}/{name}; echo"
        helper = "/usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file"
        return f"{helper} {shlex.quote(f'{place.url}/{name}')} $t/{name} >&2 && cat $t/{name}; echo"

    fresh = {
        "mirror_update": f"apt-get -q {apt} update --error-on=any 2>&1 >/dev/null; echo status $?",
        "mirror_index": "cat $t/lists/*InRelease",
        "mirror_versions": (
            f"apt-get -s -q {apt} --no-install-recommends --allow-downgrades full-upgrade | grep -E '^(Inst|Remv) '"
        ),
        "mirror_live": fetch("release.json"),
        "mirror_live_key": fetch("key.asc"),
    }
    return {
        "mirror_files": f"ls -1d {' '.join(SOURCES)}",
        "mirror_targets": "apt-get indextargets --format '$(REPO_URI) $(SIGNED_BY)'",
        "mirror_options": f"apt-config dump {' '.join(APT_OPTIONS)}",
        # The markers that the inner script prints begin sections of their own.
        "mirror_fresh": f"t=$(mktemp -d); trap 'rm -rf $t' EXIT; mkdir -p $t/lists/partial\n{sections.script(fresh)}",
        "mirror_key": f"cat {KEY}",
        "mirror_recorded": f"cat {RECORD}",
        "mirror_pip": f"grep -hsE '^ *({_PIP_KEYS}) *[=:]' {_PIP_FILES}",
        "mirror_registries": "command -v podman >/dev/null && podman info --format '{{json .Registries}}'",
        "mirror_policy": f"cat {IMAGE_POLICY}",
    }


def _server(place: MirrorPlace, registry_port: int) -> Mapping[str, str]:
    check = "-verify_ip" if place.ip is not None else "-verify_hostname"
    tls = (
        f"timeout {_SECONDS} openssl s_client -connect {place.netloc} -CAfile {CERTIFICATES}/authority.crt "
        f"-verify_return_error {check} {place.address}"
    )
    quoted = shlex.quote(place.directory)

    # A body may end without a line break, and the next section's marker has to begin a line.
    def ask(method: str, path: str) -> str:
        return f"printf '%s\\r\\n' '{method} {path} HTTP/1.0' 'Host: {place.netloc}' '' | {tls} -quiet; echo"

    return {
        "mirror_certificate": f"{tls} </dev/null | openssl x509 {ABOUT}",
        "mirror_release": ask("GET", "/release.json"),
        "mirror_registry": ask("GET", "/v2/"),
        "mirror_upload": ask("POST", UPLOAD),
        "mirror_listening": "ss -Hltn | while read -r _ _ _ address _; do echo $address; done",
        "mirror_private": (
            f"find {CERTIFICATES} {quoted}/keys \\( -name '*.key' -o -path {quoted}/keys \\) -printf '%m %u %p\\n'"
        ),
        "mirror_published": (
            f"for d in {quoted}/published/[0-9A-Za-z]*/; do tr -d '\\n' <$d/release.json && echo; done"
        ),
        "http_mirror": http.command(requests(place, registry_port)),
    }


def requests(place: MirrorPlace, registry_port: int) -> tuple[Request, ...]:
    """Return what the server is asked without TLS: the mirror, and its registry past nginx."""
    return (
        Request(f"http://{place.netloc}/release.json"),
        Request(loopback(registry_port, "/v2/")),
        Request(loopback(registry_port, UPLOAD), method="POST"),
    )


def parse_client(found: Mapping[str, Sequence[str]]) -> MirrorClientSeen | None:
    """Build what was seen of a client; None when nothing was asked."""
    if "mirror_fresh" not in found:
        return None

    def text(name: str) -> str:
        return "\n".join(found.get(name, ())).strip()

    said = [line for line in found.get("mirror_update", ()) if line.strip()]
    status = said.pop().removeprefix("status ") if said and said[-1].startswith("status ") else ""
    pairs = [line.replace(":", "=", 1) if "=" not in line else line for line in found.get("mirror_pip", ())]
    pip: dict[str, tuple[str, ...]] = {}
    for key, _, value in (line.partition("=") for line in pairs):
        pip[key.strip()] = (*pip.get(key.strip(), ()), value.strip())
    return MirrorClientSeen(
        source_files=tuple(line for line in found.get("mirror_files", ()) if line.strip()),
        targets=tuple(
            dict.fromkeys(
                Target(repository, signed_by.strip())
                for repository, _, signed_by in (line.partition(" ") for line in found.get("mirror_targets", ()))
                if repository
            )
        ),
        options=dict(_options(found.get("mirror_options", ()))),
        updated=int(status) if status.isdecimal() else None,
        errors=tuple(said),
        index=parse_index(found.get("mirror_index", ())),
        off_version=tuple(" ".join(line.split()[:2]) for line in found.get("mirror_versions", ()) if line.strip()),
        live=_json(text("mirror_live")).get("name"),
        live_key=text("mirror_live_key"),
        key=text("mirror_key"),
        recorded=text("mirror_recorded"),
        pip=pip,
        registries=_json(text("mirror_registries")) if text("mirror_registries") else None,
        image_policy=_json(text("mirror_policy")),
    )


def parse_server(found: Mapping[str, Sequence[str]]) -> MirrorServerSeen | None:
    """Build what was seen of the server; None when nothing was asked."""
    if "mirror_certificate" not in found:
        return None
    release = [line.rstrip("\r") for line in found.get("mirror_release", ())]
    body = release[release.index("") :] if "" in release else []
    private = (line.split(" ", 2) for line in found.get("mirror_private", ()) if line.count(" ") > 1)
    documents = (_json(line) for line in found.get("mirror_published", ()) if line.strip())
    return MirrorServerSeen(
        certificate=parse_certificate(["served"], found["mirror_certificate"]),
        release=(_first(release), _json("\n".join(body))),
        registry=_first(found.get("mirror_registry", ())),
        upload=_first(found.get("mirror_upload", ())),
        listening=tuple(line.strip() for line in found.get("mirror_listening", ()) if line.strip()),
        private={path: f"{mode} {owner}" for mode, owner, path in private},
        # `current` is one of them under a second name.
        published=tuple({str(one.get("name")): one for one in documents}.values()),
    )


def trusts(seen: MirrorClientSeen) -> bool:
    """Tell whether the key a client trusts is the one the mirror serves."""
    return bool(seen.key) and seen.key.split() == seen.live_key.split()


def pip_wanted(place: MirrorPlace) -> dict[str, tuple[str, ...]]:
    """Return what pip's files have to say, and all they may say, about where packages come from."""
    return {"index-url": (f"{place.url}/wheels/simple/",), "cert": (AUTHORITY,)}


def _first(lines: Iterable[str]) -> str:
    return next((line.strip() for line in lines if line.strip()), "")


def _options(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        name, _, value = line.strip().rstrip(";").partition(" ")
        if name:
            yield name, value.strip('"')


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
