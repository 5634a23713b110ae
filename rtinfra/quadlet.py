"""A container that systemd supervises: Podman's quadlet, podman-systemd.unit(5), as a value.

The rules are the same for every container: pinned image that is never fetched, the host's network, no
capabilities, read-only root, an account of its own, one slice, bounds on memory and processor, and a start that
only succeeds when the program answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from rtinfra.operations.resources import DAEMON_RELOAD, Action, Directory, File, Resource, Unit
from rtinfra.render import render, render_json

CONFIG_ROOT = "/etc/rtinfra"
DATA_ROOT = "/var/lib/rtinfra-data"
QUADLETS = "/etc/containers/systemd"
SLICE = "backends.slice"
#: Waits until a URL answers; the start of every container ends with it.
WAIT_READY = "/usr/local/lib/rtinfra/wait-ready"
SYSUSERS = Action("sysusers-backends", "systemd-sysusers")


@dataclass(frozen=True)
class Account:
    """The system account a container runs as. The number is fixed: it owns files on disks that outlive hosts."""

    name: str
    uid: int


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container.

    `image` is a name of the image catalogue. `config` are files below `config_dir`, mounted read-only at
    `config_mount`; secret ones belong to the account, mode 0600. `data` maps directories below the data root to
    paths inside. `ready` is a URL that answers with a status of `ready_status` once the program works.
    `memory_max` and `cpu_quota` are systemd's MemoryMax= and CPUQuota=. `group` is the number of the group inside,
    for images whose directories belong to group 0; None: the account's own. `after` names units of this host that
    have to be done before this one starts.
    """

    name: str
    description: str
    image: str
    account: Account
    command: tuple[str, ...]
    config: tuple[File, ...] = ()
    config_mount: str
    data: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_files: tuple[str, ...] = ()
    ready: str
    ready_status: tuple[int, ...] = (200,)
    ready_seconds: int = 180
    memory_max: str
    cpu_quota: str
    writable_root: bool = False
    limit_nofile: int | None = None
    group: int | None = None
    after: tuple[str, ...] = ()

    @property
    def unit(self) -> Unit:
        """The service that the quadlet generator makes of it; it cannot be enabled, [Install] does that."""
        return Unit(f"{self.name}.service", startup=None)

    @property
    def config_dir(self) -> str:
        """Where its configuration is on the host."""
        return config_dir(self.name)


def config_dir(name: str) -> str:
    """Return the directory with the configuration of the container `name`."""
    return f"{CONFIG_ROOT}/{name}"


def config_file(container: str, name: str, content: bytes, validate: str | None = None) -> File:
    """Return a configuration file of a container; a change restarts it."""
    return File(
        path=f"{config_dir(container)}/{name}",
        content=content,
        validate=validate,
        restarts=(f"{container}.service",),
    )


def secret_file(container: str, name: str, content: bytes, account: Account) -> File:
    """Return a file that only the container's account can read; a change restarts it."""
    return File(
        path=f"{config_dir(container)}/{name}",
        content=content,
        mode="0600",
        owner=account.name,
        group=account.name,
        secret=True,
        restarts=(f"{container}.service",),
    )


def check_command(image: str, mount: str, command: str) -> str:
    """Return a `validate` command that runs a program of an image on the staged file, without network.

    `image` is a pinned reference; `{path}` in `command` is the file inside, below `mount`.
    """
    inside = command.replace("{path}", f"{mount}/checked")
    return (
        "podman run --rm --pull=never --network=none --read-only --user 0:0 --cap-drop=all "
        f"--volume {{path}}:{mount}/checked:ro --entrypoint '' {image} {inside}"
    )


def setup_unit(container: str) -> Unit:
    """Return the unit that sets a running container up through its API."""
    return Unit(f"rtinfra-{container}-setup.service")


def setup_secret_path(container: str, name: str) -> str:
    """Return where a secret of the setup of a container is: in a folder of root's that no container has."""
    return f"{config_dir(container)}-setup/{name}"


def setup(container: str, description: str, document: object, secrets: Mapping[str, bytes]) -> list[Resource]:
    """Return what sets a container up through its API once it answers: script, its document, its secrets, unit.

    The script is templates/<container>/setup.py.j2. It must be repeatable: it runs at every boot, with every restart of
    the container and when the document changes. The document names the files of `secrets`, never their values. They are
    the setup's alone: what may change everything is nothing for a program that answers others.
    """
    unit = setup_unit(container).name
    script = f"/usr/local/lib/rtinfra/{container}-setup.py"
    path = f"{config_dir(container)}/setup.json"
    return [
        Directory(path=f"{config_dir(container)}-setup", mode="0700"),
        *(
            File(path=setup_secret_path(container, name), content=content, mode="0600", secret=True, restarts=(unit,))
            for name, content in secrets.items()
        ),
        File(path=script, content=render(f"{container}/setup.py.j2"), mode="0755", restarts=(unit,)),
        File(path=path, content=render_json(document), restarts=(unit,)),
        File(
            path=f"/etc/systemd/system/{unit}",
            content=render(
                "containers/setup.service.j2",
                container=container,
                description=description,
                script=script,
                document=path,
            ),
            actions=(DAEMON_RELOAD,),
            restarts=(unit,),
        ),
    ]


def accounts_file(containers: Iterable[Container]) -> File:
    """Return the sysusers.d(5) file with the accounts of all containers of a host."""
    accounts = {container.account.name: container.account for container in containers}
    lines = ["# Managed by rtinfra: accounts that own the files of containers."]
    lines += [f'u {account.name} {account.uid} "rtinfra container" /' for account in accounts.values()]
    return File(
        path="/etc/sysusers.d/60-rtinfra-backends.conf",
        content=("\n".join(lines) + "\n").encode(),
        actions=(SYSUSERS,),
    )


def paths(container: Container, reference: str) -> list[Resource]:
    """Return everything on the host that makes up a container; `reference` is its pinned image."""
    owner = container.account.name
    nested = {str(PurePosixPath(file.path).parent) for file in container.config} - {container.config_dir}
    return [
        Directory(path=container.config_dir),
        *(Directory(path=path) for path in sorted(nested)),
        *container.config,
        *(Directory(path=f"{DATA_ROOT}/{name}", mode="0750", owner=owner, group=owner) for name in container.data),
        File(
            path=f"{QUADLETS}/{container.name}.container",
            content=render(
                "containers/container.j2",
                container=container,
                reference=reference,
                wait=WAIT_READY,
                slice=SLICE,
                data_root=DATA_ROOT,
            ),
            actions=(DAEMON_RELOAD,),
            restarts=(f"{container.name}.service",),
        ),
    ]
