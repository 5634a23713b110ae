"""The offline mirror as its clients see it.

Nothing on the host is changed: its apt works with lists of its own in a temporary folder.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from roles.mirror_client.model import AUTHORITY, IMAGE_POLICY, KEY
from roles.mirror_place import MirrorPlace
from rtinfra.facts import output_sections
from rtinfra.facts.mirror import RECORD, SOURCES, Index, parse_index
from rtinfra.verify.look.answer import Answer, json_object
from rtinfra.verify.questions import Questions

#: Options of apt that decide what it believes.
APT_OPTIONS: Final = (
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::AllowInsecureRepositories",
    "APT::Get::AllowUnauthenticated",
    "APT::Install-Recommends",
)
_PIP_FILES: Final = "/etc/xdg/pip/pip.conf /etc/pip.conf /root/.pip/pip.conf /root/.config/pip/pip.conf"
_PIP_KEYS: Final = "index-url|extra-index-url|find-links|trusted-host|cert"


@dataclass(frozen=True)
class Target:
    """An index file that apt would use: where its repository is and the key that has to sign it."""

    repository: str
    signed_by: str


@dataclass(frozen=True)
class MirrorClient:
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

    @property
    def trusts_the_live_key(self) -> bool:
        """Whether the key the client trusts is the one the mirror serves."""
        return bool(self.key) and self.key.split() == self.live_key.split()


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask apt, pip and Podman of a client, and the mirror as the client sees it."""
    mirror = questions.mirror
    if mirror is None or not mirror.is_client:
        return {}
    return _commands(mirror.place, mirror.registry_port is not None, questions.marker)


def _commands(place: MirrorPlace, is_same_host: bool, marker: str) -> Mapping[str, str]:
    # Lists of its own, no cache: what the host has is neither used nor changed.
    apt = (
        '-o Dir::State::lists="$t/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Debug::NoLocking=1 '
        "-o APT::Sandbox::User=root"
    )

    def fetch(name: str) -> str:
        if is_same_host:
            return f"cat {shlex.quote(place.live)}/{name}; echo"
        helper = "/usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file"
        return f'{helper} {shlex.quote(f"{place.url}/{name}")} "$t/{name}" >&2 && cat "$t/{name}"; echo'

    fresh = {
        "mirror_update": f"apt-get -q {apt} update --error-on=any 2>&1 >/dev/null; echo status $?",
        "mirror_index": 'cat "$t/lists"/*InRelease',
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
        "mirror_fresh": (
            # Without a folder of its own apt would work in the host's root.
            't=$(mktemp -d) || exit; trap \'rm -rf "$t"\' EXIT; mkdir -p "$t/lists/partial"\n'
            f"{output_sections.script(fresh, marker)}"
        ),
        "mirror_key": f"cat {KEY}",
        "mirror_recorded": f"cat {RECORD}",
        "mirror_pip": f"grep -hsE '^ *({_PIP_KEYS}) *[=:]' {_PIP_FILES}",
        "mirror_registries": "command -v podman >/dev/null && podman info --format '{{json .Registries}}'",
        "mirror_policy": f"cat {IMAGE_POLICY}",
    }


def read(answer: Answer) -> MirrorClient | None:
    """Read what `ask` asked; None when nothing was."""
    if not answer.has("mirror_fresh"):
        return None

    said = list(answer.filled("mirror_update"))
    status = said.pop().removeprefix("status ") if said and said[-1].startswith("status ") else ""
    pairs = [line.replace(":", "=", 1) if "=" not in line else line for line in answer.lines("mirror_pip")]
    pip: dict[str, tuple[str, ...]] = {}
    for key, _, value in (line.partition("=") for line in pairs):
        pip[key.strip()] = (*pip.get(key.strip(), ()), value.strip())
    return MirrorClient(
        source_files=answer.filled("mirror_files"),
        targets=tuple(
            dict.fromkeys(
                Target(repository, signed_by.strip())
                for repository, _, signed_by in (line.partition(" ") for line in answer.lines("mirror_targets"))
                if repository
            )
        ),
        options=dict(_options(answer.lines("mirror_options"))),
        updated=int(status) if status.isdecimal() else None,
        errors=tuple(said),
        index=parse_index(answer.lines("mirror_index")),
        off_version=tuple(" ".join(line.split()[:2]) for line in answer.filled("mirror_versions")),
        live=json_object(answer.text("mirror_live")).get("name"),
        live_key=answer.text("mirror_live_key").strip(),
        key=answer.text("mirror_key").strip(),
        recorded=answer.text("mirror_recorded").strip(),
        pip=pip,
        registries=json_object(answer.text("mirror_registries")) if answer.text("mirror_registries").strip() else None,
        image_policy=json_object(answer.text("mirror_policy")),
    )


def pip_required(place: MirrorPlace) -> dict[str, tuple[str, ...]]:
    """Return what pip's files have to say, and all they may say, about where packages come from."""
    return {"index-url": (f"{place.url}/wheels/simple/",), "cert": (AUTHORITY,)}


def _options(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        name, _, value = line.strip().rstrip(";").partition(" ")
        if name:
            yield name, value.strip('"')
