"""What stores of one family have in common: limits by tenant, and data on disk or in an object store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from roles.shape import FleetView, RoleState
from rtinfra.config.types import ByteSize
from rtinfra.quadlet import Account, Container, check_command, config_dir, config_file, secret_file

_KEY_FILE = "s3.env"


class Limits(Protocol):
    """Settings of such a role, as far as they are the same."""

    @property
    def port(self) -> int: ...
    @property
    def memory_max(self) -> ByteSize: ...
    @property
    def cpu_quota(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class TenantStore:
    """A store of this family: what tells it from the others.

    The image's program expects its configuration in `mount` and keeps its data in `data`. `checker` is its own check of
    a configuration file, `{path}`, inside the image.
    """

    name: str
    description: str
    account: Account
    mount: str
    data: str
    checker: str
    limit_nofile: int | None = None

    def state(self, view: FleetView, settings: Limits, config: bytes, overrides: bytes) -> RoleState:
        """Return its container with this configuration and these limits of tenants."""
        store, file = view.object_store, f"{self.name}.yaml"
        check = check_command(view.store.image(self.name), self.mount, self.checker)
        container = Container(
            name=self.name,
            description=self.description,
            image=self.name,
            account=self.account,
            # The keys of the object store stand in its environment.
            command=(f"-config.file={self.mount}/{file}", *(("-config.expand-env=true",) if store else ())),
            config=(
                config_file(self.name, file, config, validate=check),
                config_file(self.name, "overrides.yaml", overrides),
                *((secret_file(self.name, _KEY_FILE, store.environment, self.account),) if store else ()),
            ),
            config_mount=self.mount,
            data={self.name: self.data},
            environment_files=(f"{config_dir(self.name)}/{_KEY_FILE}",) if store else (),
            ready=view.url(settings.port, "/ready"),
            memory_max=str(settings.memory_max),
            cpu_quota=settings.cpu_quota,
            limit_nofile=self.limit_nofile,
            after=(store.setup,) if store and store.setup else (),
        )
        return RoleState(containers=(container,))
