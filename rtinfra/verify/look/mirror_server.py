"""The offline mirror's server: what it answers over TLS to those who know its authority, and what is on its disk."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from roles.mirror_place import MirrorPlace
from rtinfra.facts.http import Request, loopback
from rtinfra.facts.mirror import ABOUT, CERTIFICATES, Certificate, parse_certificate
from rtinfra.verify.look.answer import Answer, json_object
from rtinfra.verify.questions import Questions

#: A push to the registry begins with a POST to this.
UPLOAD: Final = "/v2/rtinfra/check/blobs/uploads/"
_SECONDS: Final = 60


@dataclass(frozen=True)
class MirrorServer:
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


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask the server over TLS as its clients do, and for files on its disk."""
    mirror = questions.mirror
    return {} if mirror is None or mirror.registry_port is None else _commands(mirror.place)


def _commands(place: MirrorPlace) -> Mapping[str, str]:
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
        "mirror_listening": 'ss -Hltn | while read -r _ _ _ address _; do echo "$address"; done',
        "mirror_private": (
            f"find {CERTIFICATES} {quoted}/keys \\( -name '*.key' -o -path {quoted}/keys \\) -printf '%m %u %p\\n'"
        ),
        "mirror_published": (
            f"for d in {quoted}/published/[0-9A-Za-z]*/; do tr -d '\\n' <\"$d/release.json\" && echo; done"
        ),
    }


def requests(place: MirrorPlace, registry_port: int) -> tuple[Request, ...]:
    """Return what the server is asked without TLS: the mirror, and its registry past nginx."""
    return (
        Request(f"http://{place.netloc}/release.json"),
        Request(loopback(registry_port, "/v2/")),
        Request(loopback(registry_port, UPLOAD), method="POST"),
    )


def read(answer: Answer) -> MirrorServer | None:
    """Read what `ask` asked; None when nothing was."""
    if not answer.has("mirror_certificate"):
        return None
    release = [line.rstrip("\r") for line in answer.lines("mirror_release")]
    body = release[release.index("") :] if "" in release else []
    private = (line.split(" ", 2) for line in answer.lines("mirror_private") if line.count(" ") > 1)
    documents = (json_object(line) for line in answer.filled("mirror_published"))
    return MirrorServer(
        certificate=parse_certificate(["served"], answer.lines("mirror_certificate")),
        release=(_first(release), json_object("\n".join(body))),
        registry=_first(answer.filled("mirror_registry")),
        upload=_first(answer.filled("mirror_upload")),
        listening=tuple(line.strip() for line in answer.filled("mirror_listening")),
        private={path: f"{mode} {owner}" for mode, owner, path in private},
        # `current` is one of them under a second name.
        published=tuple({str(one.get("name")): one for one in documents}.values()),
    )


def _first(lines: Iterable[str]) -> str:
    return next((line.strip() for line in lines), "")
