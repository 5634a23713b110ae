"""What a role is for others: who may reach it, what is scraped of it, what it stores, what Grafana can ask it.

Each of these is written twice: with the type of the role's settings, as the role says it, and settled (`StoreAt`,
`DatasourceAt`, `Job`, `ListenerAt`) as the fleet has it, which is what others read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Literal

from rtinfra.config.sections import S, Section
from rtinfra.facts.http import Request
from rtinfra.netloc import netloc, url

#: Header in which stores that keep tenants apart expect the tenant.
TENANT_HEADER = "X-Scope-OrgID"
#: A JSON object.
Json = Mapping[str, Any]


class Signal(StrEnum):
    """What is stored; the order in which people are offered it."""

    METRICS = "metrics"
    ALERTS = "alerts"
    TRACES = "traces"
    LOGS = "logs"


@dataclass(frozen=True)
class Member(Generic[S]):
    """A host that runs a role: its name, the address others reach it by, its settings of that role, its tenant."""

    host: str
    address: str
    settings: S
    tenant: str

    def netloc(self, port: int) -> str:
        """Return `address:port`."""
        return netloc(self.address, port)

    def url(self, port: int, path: str = "") -> str:
        """Return a URL of it; `path` begins with a slash or is empty."""
        return url(self.address, port, path)


class Bound(StrEnum):
    """What a program listens at."""

    ADDRESS = "the host's address"
    LOOPBACK = "loopback"
    EVERYWHERE = "every address of the host"


#: Transports of a listener, in nftables' words.
Transport = Literal["tcp", "udp"]


@dataclass(frozen=True, kw_only=True)
class Listener(Generic[S]):
    """One port that a program of a role listens on, and who may reach it.

    `peers` are sections: all hosts of the fleet that have one of them, since their programs connect to it. `is_page`:
    people do too, from the networks that the operator names. With neither it is for the host itself. `addresses` as in
    `Scrape`. `is_used`: whether these settings make a program listen there; None: always.
    """

    port: Callable[[S], int]
    peers: tuple[Section[Any], ...] = ()
    is_page: bool = False
    bound: Bound = Bound.ADDRESS
    transports: tuple[Transport, ...] = ("tcp",)
    addresses: Callable[[Member[S]], tuple[str, ...]] | None = None
    is_used: Callable[[S], bool] | None = None

    def addresses_of(self, member: Member[S]) -> tuple[str, ...]:
        """Return what it listens at on a host."""
        return self.addresses(member) if self.addresses else (member.address,)

    def at(self, role: str, member: Member[S], peers: frozenset[str]) -> ListenerAt | None:
        """Return it as a host has it, None when it does not; `peers` are the names of the hosts that may reach it."""
        if self.is_used is not None and not self.is_used(member.settings):
            return None
        addresses, port = self.addresses_of(member), self.port(member.settings)
        return ListenerAt(role, port, self.transports, self.bound, addresses, peers, self.is_page)


@dataclass(frozen=True)
class ListenerAt:
    """A port that a program of a host listens on: at these addresses, for these hosts of the fleet."""

    role: str
    port: int
    transports: tuple[Transport, ...]
    bound: Bound
    addresses: tuple[str, ...]
    peers: frozenset[str]
    """Names of hosts."""
    is_page: bool


@dataclass(frozen=True)
class ObjectStore:
    """An S3 service of the fleet: where it answers and with which key."""

    endpoint: str
    region: str
    key_id: str = field(repr=False)
    key: str = field(repr=False)
    setup: str | None
    """Unit of this host that makes the buckets; None when another host does."""

    @property
    def environment(self) -> bytes:
        """An environment file with the key, for programs that expand variables in their configuration."""
        return f"S3_KEY_ID={self.key_id}\nS3_KEY_SECRET={self.key}\n".encode()


@dataclass(frozen=True, kw_only=True)
class Scrape(Generic[S]):
    """One kind of program that shows metrics, scraped as one job.

    `of_tenant`: what it shows belongs to the host's tenant, otherwise to those who look after the stack. `addresses`:
    where a host has several of the program; None: one, at the host's address.
    """

    job: str
    port: Callable[[S], int]
    of_tenant: bool = False
    addresses: Callable[[Member[S]], tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Endpoint:
    """Where one program of a host shows its metrics."""

    address: str
    host: str
    tenant: str


@dataclass(frozen=True)
class Job:
    """Programs of one kind, scraped alike. `group` is the one that their hosts are in."""

    name: str
    group: str
    targets: tuple[Endpoint, ...]


@dataclass(frozen=True)
class Span:
    """A span as a store answers it. `tenants`: whose it says it is."""

    id: str
    name: str
    parents: frozenset[str]
    service: str
    tenants: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class TraceSearch(Generic[S]):
    """How a store is asked for a trace by its id: the URL, how long that may take, the spans in an answer.

    `spans` returns None when the answer has the trace and does not tell its spans in a form that is read here.
    """

    seconds: int
    url: Callable[[Member[S], str], str]
    spans: Callable[[Json], tuple[Span, ...] | None]


@dataclass(frozen=True, kw_only=True)
class LogSearch(Generic[S]):
    """How a store is asked for the records that name a trace: the request, and the records in an answer, as text.

    `login` names the user and the setting with the secret of its password.
    """

    request: Callable[[Member[S], str], Request]
    records: Callable[[Json], str]
    login: tuple[str, Callable[[S], str]] | None = None


@dataclass(frozen=True, kw_only=True)
class Store(Generic[S]):
    """How a role takes a signal in and gives it back.

    `exporter` is the type of the collector's exporter and `ingest` what it is pointed at; with `spreads` it is given
    all members, otherwise the first. `by_tenant`: the tenant is named in a header. `otlp_http` is the base URL for
    collectors that speak OTLP over HTTP only, `remote_write` the URL for Prometheus' own protocol. `password` is the
    secret of the user that writes, `index` the beginning of the names of indices; a tenant and a day follow.
    """

    signal: Signal
    exporter: Literal["otlp_grpc", "otlp_http", "elasticsearch"]
    ingest: Callable[[Member[S]], str]
    spreads: bool = False
    by_tenant: bool = False
    otlp_http: Callable[[Member[S]], str] | None = None
    remote_write: Callable[[Member[S]], str] | None = None
    user: str = ""
    password: Callable[[S], str] | None = None
    index: str = ""
    trace_search: TraceSearch[S] | None = None
    log_search: LogSearch[S] | None = None


@dataclass(frozen=True)
class StoreAt:
    """A store as the fleet runs it. `host` is the one that is asked what it stores: there, since others may not."""

    role: str
    host: str
    signal: Signal
    exporter: str
    targets: tuple[str, ...]
    by_tenant: bool
    otlp_http: str | None
    remote_write: str | None
    user: str
    password_secret: str | None
    index: str
    trace_seconds: int
    trace_url: Callable[[str], str] | None
    spans: Callable[[Json], tuple[Span, ...] | None] | None
    log_request: Callable[[str], Request] | None
    log_records: Callable[[Json], str] | None
    log_login: tuple[str, str] | None
    """User and name of the secret."""


@dataclass(frozen=True)
class Links:
    """Uids of the datasources that one datasource of a tenant can lead to; None where there is none."""

    metrics: str | None
    traces: str | None
    logs: str | None
    logs_query: str | None
    """How the logs of the trace in question are asked for."""
    alerts: str | None


@dataclass(frozen=True)
class Reader(Generic[S]):
    """The user of a store that may only read: its name, the file that will hold its password, the secret's setting."""

    user: str
    file: str
    secret: Callable[[S], str]


@dataclass(frozen=True, kw_only=True)
class Datasource(Generic[S]):
    """How Grafana asks a role: the type of its datasource, where it answers, what leads elsewhere.

    `logs_query` is made from the id of a trace and the name of a service, both as variables of Grafana.
    """

    title: str
    type: str
    signal: Signal
    url: Callable[[Member[S]], str]
    options: Callable[[Links], dict[str, object]]
    by_tenant: bool = False
    is_default: bool = False
    reader: Reader[S] | None = None
    logs_query: Callable[[str, str], str] | None = None


@dataclass(frozen=True)
class DatasourceAt:
    """A datasource as the fleet has it. Of several hosts of a role the first is asked; the cluster has the rest."""

    role: str
    title: str
    type: str
    signal: Signal
    url: str
    options: Callable[[Links], dict[str, object]]
    by_tenant: bool
    is_default: bool
    reader: tuple[str, str, str] | None
    """User, name of the file for its password, name of the secret."""
    logs_query: Callable[[str, str], str] | None

    def uid(self, tenant: str) -> str:
        """Return its fixed uid, for one tenant where it knows tenants."""
        return f"{self.role}-{tenant}" if self.by_tenant else self.role
