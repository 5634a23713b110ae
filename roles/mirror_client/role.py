"""The `mirror_client` role: packages, wheels and images come from the offline mirror and from nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from roles.mirror_client.model import (
    APT_CONFIGURATION,
    AUTHORITY,
    IMAGE_POLICY,
    IMAGES,
    KEY,
    MIRROR_CLIENT,
    PIP,
    PREFERENCES,
    PRIORITY,
    REGISTRIES,
    REPLACED,
    REPOSITORY,
    SOURCE,
    MirrorClientSettings,
)
from roles.mirror_place import MirrorPlace
from roles.mirror_server.model import MIRROR_SERVER
from roles.shape import FleetView, Phase, Role, RoleState
from rtinfra.config import Finding
from rtinfra.facts.mirror import REFUSED, MirrorState
from rtinfra.operations import mirror as mirror_operations
from rtinfra.operations.resources import File, Resource
from rtinfra.render import render, render_json

# Images that come as files are those that somebody with root's rights brought.
_LOCAL_TRANSPORTS = ("containers-storage", "dir", "docker-archive", "oci", "oci-archive", "tarball")


def state(settings: MirrorClientSettings, view: FleetView) -> RoleState:
    """Return the step that points the host at the mirror, and the files that no answer of the mirror's host goes into.

    The others follow what it answers while the run is carried out: its certificates may be made in that run, another
    release may go live.
    """
    if view.mirror is None:
        raise ValueError(view.mirror_problem)
    place = view.mirror.place
    return RoleState(
        files=tuple(settled_files(place)) if settings.enabled else (),
        steps={Phase.SUPPLY: partial(configure, settings, place, view.mirror.is_served)},
    )


def files(place: MirrorPlace, is_same_host: bool, served: MirrorState) -> list[Resource]:
    """Every path this role manages.

    Raises:
        ValueError: the mirror has no release or no certificate.
    """
    if served.release is None or served.authority is None:
        raise ValueError("the mirror has no release or no certificate")
    index = served.release.index
    return [
        File(path=KEY, content=served.release.key),
        File(path=AUTHORITY, content=served.authority.pem),
        File(path=_registry_authority(place), content=served.authority.pem),
        # What was given up stays so on the host, whatever the mirror becomes.
        *(File(path=f"{REFUSED}/{key}", content=b"given up\n") for key in served.refused),
        *settled_files(place),
        File(path=PREFERENCES, content=render("mirror_client/preferences.j2", index=index, priority=PRIORITY)),
        File(
            path=SOURCE,
            content=render(
                "mirror_client/rtinfra.sources.j2",
                uri=f"file:{place.live}/apt" if is_same_host else f"{place.url}/apt",
                index=index,
                key=KEY,
            ),
        ),
    ]


def settled_files(place: MirrorPlace) -> list[Resource]:
    """Those of `files` that are the same whatever the mirror's host answers."""
    return [
        File(
            path=APT_CONFIGURATION,
            content=render("mirror_client/apt.conf.j2", host=place.netloc_host, authority=AUTHORITY),
        ),
        File(
            path=PIP,
            content=render(
                "mirror_client/pip.conf.j2", url=place.url, authority=AUTHORITY, is_address=place.ip is not None
            ),
        ),
        File(
            path=REGISTRIES,
            content=render("mirror_client/registries.conf.j2", images=IMAGES, location=f"{place.netloc}/{REPOSITORY}"),
        ),
        File(path=IMAGE_POLICY, content=render_json(image_policy())),
    ]


def image_policy() -> dict[str, object]:
    """Return the policy for images, containers-policy.json(5): from a registry only ours; their digests are pinned."""
    accept, reject = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
    return {
        "default": reject,
        "transports": {"docker": {IMAGES: accept}, **{transport: {"": accept} for transport in _LOCAL_TRANSPORTS}},
    }


def paths(place: MirrorPlace) -> Sequence[str]:
    """Return the paths of `files`, whatever they hold."""
    return (
        *(KEY, AUTHORITY, APT_CONFIGURATION, PREFERENCES, SOURCE, PIP, REGISTRIES, IMAGE_POLICY),
        _registry_authority(place),
    )


def _registry_authority(place: MirrorPlace) -> str:
    return f"/etc/containers/certs.d/{place.netloc}/ca.crt"


def configure(settings: MirrorClientSettings, place: MirrorPlace, is_same_host: bool) -> None:
    """Point the host at the mirror, or take that back."""
    if settings.enabled:
        mirror_operations.pointed(
            name="pointed",
            server=place.host,
            directory=place.directory,
            files=partial(files, place, is_same_host),
            replaced=REPLACED,
            follow=settings.follow,
        )
    else:
        mirror_operations.restored(name="restored", paths=paths(place))


def _problems(settings: MirrorClientSettings, view: FleetView) -> Iterator[Finding]:
    if view.mirror_problem:
        yield Finding(
            "mirror_client.server",
            settings.server,
            f"leaves open where this host gets its packages from: {view.mirror_problem}",
            f"put the host that serves the mirror into the group {MIRROR_SERVER.group}, and name it here if there are "
            "several",
        )


ROLE = Role(section=MIRROR_CLIENT, state=state, supplies=True, problems=_problems)
