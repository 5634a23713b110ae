"""What a role is, and what it may know of its surroundings.

A role is one room, `roles/<role>/`, with `model.py` (typed settings and the `Section` that is their key) and `role.py`
with one `ROLE`. Whatever is true of it stands there: what it puts on a host (`state`), who may reach it, what is
scraped of it, which signal it stores, what it shows in Grafana, what a look at it asks. `roles/catalogue.py` lists all
of them, and everybody else reads that list: deploy, plan, drift, the mirror's lock, verification, `stack`.

Agents, gateways and backends point at each other. Instead of addresses written twice, each gets a `FleetView`: the
fleet as seen from its host.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from functools import partial
from typing import Any, Generic, Protocol, cast

from roles.facets import (
    Datasource,
    DatasourceAt,
    Endpoint,
    Job,
    Listener,
    ListenerAt,
    Member,
    ObjectStore,
    Scrape,
    Signal,
    Store,
    StoreAt,
)
from roles.host import HostConfig
from roles.mirror_place import Mirror
from roles.shared import INFRA_TENANT, BackendsSettings, TelemetrySettings
from rtinfra.config import Finding
from rtinfra.config.sections import S, Section
from rtinfra.cpu import CpuFinding, CpuLayout
from rtinfra.deb import LocalPackage
from rtinfra.facts.host import HostState
from rtinfra.facts.http import Request
from rtinfra.netloc import netloc, url
from rtinfra.operations.packet_filter import PacketFilter
from rtinfra.operations.resources import PythonEnvironment, Resource, RuntimeValue, Unit
from rtinfra.quadlet import Container


class Tier(IntEnum):
    """Order in which the programs of roles start; they stop in the reverse order."""

    HOST = 0
    """The host itself: not started and stopped like a program of the stack."""
    OBJECTS = 1
    """What stores keep their data in."""
    STORES = 2
    SHOWS = 3
    PASSES_ON = 4
    SENDS = 5


class Phase(Enum):
    """Moments of a deploy at which a role does more than place files."""

    SERVE = "before any package: what other hosts get theirs from"
    SUPPLY = "then: where this host gets its packages from"
    REBOOT = "after the files of the role"


class Secrets(Protocol):
    """Source of secrets for roles."""

    def read(self, name: str) -> bytes:
        """Return the value of a secret; raises SecretError when it is not defined."""
        ...


class ImageStore(Protocol):
    """Images and our own packages on this computer; hosts fetch nothing, so all of them have to be there."""

    def image(self, name: str) -> str:
        """Return the pinned reference of an image of the catalogue, `repository@sha256:...`."""
        ...

    def package(self, name: str) -> LocalPackage:
        """Return one of our own Debian packages."""
        ...


@dataclass(frozen=True)
class RoleState:
    """What one role puts on a host. Containers bring their own paths and unit.

    `guard` are files that come before any package is installed, `accounts` those that make accounts which own other
    paths. `packages` are Debian's, `name/suite` names a suite. `ready` tells for units of no container where they
    answer. `steps` are operations of the role's own.
    """

    containers: tuple[Container, ...] = ()
    files: tuple[Resource, ...] = ()
    units: tuple[Unit, ...] = ()
    packages: tuple[str, ...] = ()
    local_packages: tuple[LocalPackage, ...] = ()
    guard: tuple[Resource, ...] = ()
    accounts: tuple[Resource, ...] = ()
    environments: tuple[PythonEnvironment, ...] = ()
    runtime: tuple[RuntimeValue, ...] = ()
    packet_filters: tuple[PacketFilter, ...] = ()
    ready: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[Phase, Callable[[], None]] = field(default_factory=dict)
    slices: tuple[str, ...] = ()
    own_services: tuple[str, ...] = ()
    private_directories: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Resource, ...]:
        """Every path, in the order in which they are placed."""
        return (*self.guard, *self.accounts, *self.files)


@dataclass(frozen=True)
class Labels:
    """What operators see a role's operations called."""

    guard: str = "guard"
    accounts: str = "accounts"
    files: str = "files"


@dataclass(frozen=True)
class FleetView:
    """The fleet as seen from one host."""

    host: str
    address: str
    telemetry: TelemetrySettings
    backends: BackendsSettings
    by_section: Mapping[str, tuple[Member[Any], ...]] = field(repr=False)
    """Members by the name of their section; `members` gives them their type back."""
    roles: tuple[AnyRole, ...] = field(repr=False)
    secrets: Secrets = field(repr=False)
    store: ImageStore = field(repr=False)
    distribution: str = ""
    """What the host runs, for example `debian-13`."""
    layout: CpuLayout | None = None
    """Of a real-time host."""
    mirror: Mirror | None = None
    """The offline mirror that the host serves or uses."""
    mirror_problem: str = ""
    """Why the inventory does not tell which mirror that is."""
    ssh_port: int = 22
    """Where the inventory says its ssh server is; it may be a port that is forwarded there."""
    settings_sha256: str = ""
    """Hash of all settings of the host."""
    others: tuple[RoleState, ...] = field(default=(), repr=False)
    """What the other roles put on this host; only of roles that speak of them."""

    def members(self, section: Section[S]) -> tuple[Member[S], ...]:
        """Return the hosts that have a section, in the order of the inventory."""
        return cast("tuple[Member[S], ...]", self.by_section.get(section.name, ()))

    def own(self, section: Section[S]) -> S | None:
        """Return this host's settings of a section; None when it is not in its group."""
        return next((member.settings for member in self.members(section) if member.host == self.host), None)

    def required(self, section: Section[S]) -> S:
        """Return this host's settings of a section.

        Raises:
            TypeError: it is not in the section's group.
        """
        found = self.own(section)
        if found is None:
            raise TypeError(f"{self.host} has no section {section.name}: it is not in the group {section.group}")
        return found

    @property
    def housekeeping(self) -> str | None:
        """CPU list of a real-time host's housekeeping cores; None elsewhere."""
        return self.layout.housekeeping_list if self.layout is not None else None

    @property
    def cpus(self) -> CpuLayout:
        """The CPU layout of a real-time host.

        Raises:
            TypeError: the host is none.
        """
        if self.layout is None:
            raise TypeError(f"{self.host} is not a real-time host")
        return self.layout

    @property
    def is_supplied(self) -> bool:
        """Whether the host gets all packages, wheels and images from the offline mirror, and none from this
        computer."""
        return self.mirror is not None and self.mirror.is_used

    def netloc(self, port: int) -> str:
        """Return `address:port` of this host."""
        return netloc(self.address, port)

    def url(self, port: int, path: str = "") -> str:
        """Return a URL of this host; `path` begins with a slash or is empty."""
        return url(self.address, port, path)

    def stores(self, signal: Signal) -> tuple[StoreAt, ...]:
        """Return what stores a signal in this fleet: the chosen store first, then the others."""
        found = [store for role in self.roles if (store := role.store_in(self)) and store.signal is signal]
        return tuple(sorted(found, key=lambda store: store.role != self._chosen(signal)))

    def chosen(self, signal: Signal) -> StoreAt | None:
        """Return the store that gateways send a signal to; None when no role of this fleet is it."""
        return next((store for store in self.stores(signal) if store.role == self._chosen(signal)), None)

    def datasources(self) -> tuple[DatasourceAt, ...]:
        """Return what Grafana can ask in this fleet."""
        return tuple(found for role in self.roles if (found := role.datasource_in(self)))

    def datasource(self, signal: Signal) -> DatasourceAt | None:
        """Return the datasource of a signal: that of the chosen store, else what there is."""
        found = [source for source in self.datasources() if source.signal is signal]
        return min(found, key=lambda source: source.role != self._chosen(signal), default=None)

    def jobs(self) -> list[Job]:
        """Return what is scraped: every program of the fleet that has metrics, grouped by kind."""
        return [job for role in self.roles for job in role.jobs_in(self) if job.targets]

    def listeners(self) -> list[ListenerAt]:
        """Return every port that a program of ours listens on, on this host."""
        return [listener for role in self.roles for listener in role.listeners_in(self)]

    def addresses_by_host(self) -> Mapping[str, tuple[str, ...]]:
        """Return the addresses of each host of the fleet: that by which others reach it, and those of its programs."""
        found: dict[str, dict[str, None]] = {}
        for role in self.roles:
            for host, address in role.addresses_in(self):
                found.setdefault(host, {})[address] = None
        return {host: tuple(addresses) for host, addresses in found.items()}

    @property
    def object_store(self) -> ObjectStore | None:
        """Return the S3 service that stores keep their data in, None when no host runs one (OB-12)."""
        return next((found for role in self.roles if (found := role.object_store_in(self))), None)

    def groups_with(self, what: Callable[[AnyRole], bool]) -> str:
        """Return the groups of roles that something holds for, for a message."""
        return " or ".join(role.group for role in self.roles if what(role))

    def _chosen(self, signal: Signal) -> str | None:
        """Return the name of the store that the settings choose for a signal."""
        match signal:
            case Signal.METRICS:
                return self.telemetry.metrics
            case Signal.TRACES:
                return self.telemetry.traces
            case Signal.LOGS:
                return self.telemetry.logs
            case Signal.ALERTS:
                return None


class AnyRole(ABC):
    """A role without the type of its settings: what those need who treat all roles alike."""

    tier: Tier
    labels: Labels
    keeps_objects: bool
    speaks_of_others: bool
    supplies: bool

    @property
    @abstractmethod
    def key(self) -> Section[Any]:
        """Its section."""

    @property
    def name(self) -> str:
        """Its name, which is that of its section and its folder."""
        return self.key.name

    @property
    def group(self) -> str:
        """The group whose hosts have it."""
        return self.key.group

    @property
    @abstractmethod
    def stored(self) -> Signal | None:
        """The signal it stores."""

    @property
    @abstractmethod
    def makes_object_store(self) -> bool:
        """Whether others can keep their data in it."""

    @abstractmethod
    def state_in(self, view: FleetView) -> RoleState:
        """Return what it puts on the host of the view. Raises ValueError when it cannot work in this fleet."""

    @abstractmethod
    def findings_of(self, config: HostConfig) -> Iterator[Finding]:
        """Return what is wrong with its settings of a host beyond each single value."""

    @abstractmethod
    def local_files_of(self, config: HostConfig) -> dict[str, str | None]:
        """Return the files of the control machine that it sends, by configuration key; None: one is missing."""

    @abstractmethod
    def problems_in(self, view: FleetView) -> Iterator[Finding]:
        """Return why it cannot work in this fleet."""

    @abstractmethod
    def refusals_in(self, view: FleetView, state: HostState) -> Iterator[Finding | CpuFinding]:
        """Return why an observed host cannot have it."""

    @abstractmethod
    def read_back_in(self, view: FleetView) -> Iterable[Request]:
        """Return what its programs on the host of the view are asked in a look."""

    @abstractmethod
    def listeners_in(self, view: FleetView) -> Iterator[ListenerAt]:
        """Return the ports that its programs on the host of the view listen on."""

    @abstractmethod
    def addresses_in(self, view: FleetView) -> Iterator[tuple[str, str]]:
        """Return its hosts in the fleet, each with every address that they have or its programs listen at."""

    @abstractmethod
    def jobs_in(self, view: FleetView) -> Iterator[Job]:
        """Return what is scraped of it."""

    @abstractmethod
    def store_in(self, view: FleetView) -> StoreAt | None:
        """Return it as a store of the fleet; None when it is none, or no host runs it."""

    @abstractmethod
    def datasource_in(self, view: FleetView) -> DatasourceAt | None:
        """Return it as a datasource of the fleet."""

    @abstractmethod
    def object_store_in(self, view: FleetView) -> ObjectStore | None:
        """Return it as the object store of the fleet."""


@dataclass(frozen=True, kw_only=True)
class Role(AnyRole, Generic[S]):
    """A role, with everything that is true of it.

    `findings` looks at its settings beside others of the host, `problems` at the fleet, `refusals` at the observed
    host: all before anything is changed. `reads_back` is what its programs are asked in a look. `keeps_objects`: its
    data may be in an object store. `supplies`: its files and units are brought by its own step, before those of all
    others.
    `speaks_of_others`: its state follows from that of all other roles of the host.
    """

    section: Section[S]
    state: Callable[[S, FleetView], RoleState]
    tier: Tier = Tier.HOST
    labels: Labels = Labels()
    listens: tuple[Listener[S], ...] = ()
    scrapes: tuple[Scrape[S], ...] = ()
    store: Store[S] | None = None
    datasource: Datasource[S] | None = None
    object_store: Callable[[Member[S], FleetView], ObjectStore] | None = None
    keeps_objects: bool = False
    speaks_of_others: bool = False
    supplies: bool = False
    reads_back: Callable[[S, FleetView], Iterable[Request]] | None = None
    findings: Callable[[S, HostConfig], Iterable[Finding]] | None = None
    local_files: Callable[[S], Mapping[str, str | None]] | None = None
    problems: Callable[[S, FleetView], Iterable[Finding]] | None = None
    refusals: Callable[[S, FleetView, HostState], Iterable[Finding | CpuFinding]] | None = None

    def __post_init__(self) -> None:
        if self.tier is not Tier.HOST and (self.supplies or self.speaks_of_others):
            raise TypeError(f"{self.name} is a program of the stack: it cannot supply packages or speak of other roles")

    @property
    def key(self) -> Section[S]:
        return self.section

    @property
    def stored(self) -> Signal | None:
        return self.store.signal if self.store else None

    @property
    def makes_object_store(self) -> bool:
        return self.object_store is not None

    def state_in(self, view: FleetView) -> RoleState:
        return self.state(view.required(self.section), view)

    def findings_of(self, config: HostConfig) -> Iterator[Finding]:
        settings = config.get(self.section)
        if settings is not None and self.findings is not None:
            yield from self.findings(settings, config)

    def local_files_of(self, config: HostConfig) -> dict[str, str | None]:
        settings = config.get(self.section)
        if settings is None or self.local_files is None:
            return {}
        return {f"{self.name}.{key}": name for key, name in self.local_files(settings).items()}

    def problems_in(self, view: FleetView) -> Iterator[Finding]:
        settings = view.own(self.section)
        if settings is not None and self.problems is not None:
            yield from self.problems(settings, view)

    def refusals_in(self, view: FleetView, state: HostState) -> Iterator[Finding | CpuFinding]:
        settings = view.own(self.section)
        if settings is not None and self.refusals is not None:
            yield from self.refusals(settings, view, state)

    def read_back_in(self, view: FleetView) -> Iterable[Request]:
        settings = view.own(self.section)
        return self.reads_back(settings, view) if settings is not None and self.reads_back is not None else ()

    def listeners_in(self, view: FleetView) -> Iterator[ListenerAt]:
        own = [member for member in view.members(self.section) if member.host == view.host]
        for listener in self.listens if own else ():
            peers = frozenset(peer.host for section in listener.peers for peer in view.members(section))
            if found := listener.at(self.name, own[0], peers):
                yield found

    def addresses_in(self, view: FleetView) -> Iterator[tuple[str, str]]:
        for member in view.members(self.section):
            yield member.host, member.address
            for listener in self.listens:
                yield from ((member.host, address) for address in listener.addresses_of(member))

    def jobs_in(self, view: FleetView) -> Iterator[Job]:
        for scrape in self.scrapes:
            targets = (
                Endpoint(
                    netloc(address, scrape.port(member.settings)),
                    member.host,
                    member.tenant if scrape.of_tenant else INFRA_TENANT,
                )
                for member in view.members(self.section)
                for address in (scrape.addresses(member) if scrape.addresses else (member.address,))
            )
            yield Job(scrape.job, self.group, tuple(targets))

    def store_in(self, view: FleetView) -> StoreAt | None:
        members, store = view.members(self.section), self.store
        if store is None or not members:
            return None
        first = members[0]
        trace, log = store.trace_search, store.log_search
        return StoreAt(
            role=self.name,
            host=first.host,
            signal=store.signal,
            exporter=store.exporter,
            targets=tuple(store.ingest(member) for member in (members if store.spreads else members[:1])),
            by_tenant=store.by_tenant,
            otlp_http=store.otlp_http(first) if store.otlp_http else None,
            remote_write=store.remote_write(first) if store.remote_write else None,
            user=store.user,
            password_secret=store.password(first.settings) if store.password else None,
            index=store.index,
            trace_seconds=trace.seconds if trace else 0,
            trace_url=partial(trace.url, first) if trace else None,
            spans=trace.spans if trace else None,
            log_request=partial(log.request, first) if log else None,
            log_records=log.records if log else None,
            log_login=(log.login[0], log.login[1](first.settings)) if log and log.login else None,
        )

    def datasource_in(self, view: FleetView) -> DatasourceAt | None:
        members, source = view.members(self.section), self.datasource
        if source is None or not members:
            return None
        return DatasourceAt(
            role=self.name,
            title=source.title,
            type=source.type,
            signal=source.signal,
            url=source.url(members[0]),
            options=source.options,
            by_tenant=source.by_tenant,
            is_default=source.is_default,
            reader=(reader.user, reader.file, reader.secret(members[0].settings))
            if (reader := source.reader)
            else None,
            logs_query=source.logs_query,
        )

    def object_store_in(self, view: FleetView) -> ObjectStore | None:
        members = view.members(self.section)
        if self.object_store is None or not members:
            return None
        # The one on this host saves a way over the network; all of them have the same content.
        nearest = next((member for member in members if member.host == view.host), members[0])
        return self.object_store(nearest, view)
