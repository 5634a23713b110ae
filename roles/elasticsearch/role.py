"""The `elasticsearch` role: the log store."""

from __future__ import annotations

import json
import math
from typing import Any

from roles.agents.model import AGENTS
from roles.datasources import trace_link
from roles.elasticsearch.model import ELASTICSEARCH, LOG_INDEX, READER, WRITER, ElasticsearchSettings
from roles.facets import Datasource, Json, Links, Listener, LogSearch, Member, Reader, Signal, Store
from roles.gateways.model import GATEWAYS
from roles.grafana.model import GRAFANA
from roles.kibana.model import KIBANA
from roles.shape import FleetView, Role, RoleState, Tier
from rtinfra import quadlet
from rtinfra.facts.http import Request
from rtinfra.operations.resources import Absent, Action, File
from rtinfra.quadlet import Account, Container, config_dir, config_file, secret_file, setup_secret_path
from rtinfra.render import render

NAME = "elasticsearch"
ACCOUNT = Account("rtinfra-elasticsearch", 429)
#: Below the program's own configuration directory: it may read certificates nowhere else, and without the files that
#: the image has there it does not start.
MOUNT = "/usr/share/elasticsearch/config/rtinfra"
DATA = "/usr/share/elasticsearch/data"

_SYSCTL_FILE = "/etc/sysctl.d/60-rtinfra-elasticsearch.conf"
_SYSCTL = Action("sysctl-elasticsearch", f"sysctl -q -p {_SYSCTL_FILE}")


def state(settings: ElasticsearchSettings, view: FleetView) -> RoleState:
    """Return its container; on the first host also what makes templates, lifecycles and users.

    Raises:
        ValueError: several members without certificates: Elasticsearch refuses to form such a cluster.
    """
    members = view.members(ELASTICSEARCH)
    if len(members) > 1 and settings.transport_tls is None:
        raise ValueError("several members need certificates: set elasticsearch.transport_tls")
    container = Container(
        name=NAME,
        description="Elasticsearch, logs",
        image=NAME,
        account=ACCOUNT,
        command=("eswrapper",),
        config=(
            # The image's own entry point reads it; a value with a blank cannot be in a unit's Environment=.
            config_file(NAME, "java.env", f"ES_JAVA_OPTS=-Xms{settings.heap_mb}m -Xmx{settings.heap_mb}m\n".encode()),
            secret_file(NAME, "password", view.secrets.read(settings.password_secret), ACCOUNT),
            *_certificates(settings, view),
        ),
        config_mount=MOUNT,
        data={NAME: DATA},
        environment=environment(settings, view),
        environment_files=(f"{config_dir(NAME)}/java.env",),
        # Without a password this answers 401, and only once the node serves requests. The setup waits for yellow.
        ready=view.url(settings.port, "/_cluster/health?wait_for_status=yellow"),
        ready_status=(200, 401),
        memory_max=str(settings.memory_max),
        cpu_quota=settings.cpu_quota,
        # It writes its keystore beside its configuration and a log of its garbage collector. In the image all of that
        # belongs to group 0, so that it runs under any number that is a member of that group.
        writable_root=True,
        group=0,
        limit_nofile=65536,
    )
    sysctl = File(path=_SYSCTL_FILE, content=render("elasticsearch/sysctl.conf.j2"), actions=(_SYSCTL,))
    if members and members[0].host != view.host:
        return RoleState(containers=(container,), files=(sysctl,))
    return RoleState(
        containers=(container,),
        files=(
            sysctl,
            *quadlet.setup(
                NAME, "Index template, lifecycle and users", document(settings, view), _setup_secrets(settings, view)
            ),
            # Where the container saw them before.
            *(Absent(path=f"{config_dir(NAME)}/user-{user}") for user in _users(settings, view) if user != WRITER),
        ),
        units=(quadlet.setup_unit(NAME),),
        packages=("python3",),
    )


def environment(settings: ElasticsearchSettings, view: FleetView) -> dict[str, str]:
    """Return the settings of a node; the image turns variables with a dot in their names into settings."""
    members = view.members(ELASTICSEARCH)
    tls = settings.transport_tls is not None
    found = {
        "cluster.name": "rtinfra",
        "node.name": view.host,
        "network.host": view.address,
        "http.port": str(settings.port),
        "transport.port": str(settings.transport_port),
        "xpack.security.enabled": "true",
        "xpack.security.enrollment.enabled": "false",
        # Passwords travel readable: http is for the closed network only (docs/backends.md).
        "xpack.security.http.ssl.enabled": "false",
        "xpack.security.transport.ssl.enabled": str(tls).lower(),
        "ingest.geoip.downloader.enabled": "false",
        "ELASTIC_PASSWORD_FILE": f"{MOUNT}/password",
    }
    if tls:
        found |= {
            "xpack.security.transport.ssl.verification_mode": "certificate",
            "xpack.security.transport.ssl.certificate_authorities": f"{MOUNT}/ca.pem",
            "xpack.security.transport.ssl.certificate": f"{MOUNT}/node.pem",
            "xpack.security.transport.ssl.key": f"{MOUNT}/node.key",
        }
    if len(members) > 1:
        seeds = (member.netloc(member.settings.transport_port) for member in members)
        found["discovery.seed_hosts"] = ",".join(seeds)
        # Only looked at while no cluster was ever formed; the same on all members.
        found["cluster.initial_master_nodes"] = ",".join(member.host for member in members)
    else:
        found["discovery.type"] = "single-node"
    return found


def _certificates(settings: ElasticsearchSettings, view: FleetView) -> tuple[File, ...]:
    tls = settings.transport_tls
    if tls is None:
        return ()
    secrets = {"ca.pem": tls.ca_secret, "node.pem": tls.certificate_secret, "node.key": tls.key_secret}
    return tuple(
        secret_file(NAME, name, view.secrets.read(secret) + b"\n", ACCOUNT) for name, secret in secrets.items()
    )


def _setup_secrets(settings: ElasticsearchSettings, view: FleetView) -> dict[str, bytes]:
    """Passwords by the name of their file: that of who makes the users, and theirs."""
    secrets = {f"user-{user}": name for user, (name, _) in _users(settings, view).items()}
    return {
        name: view.secrets.read(secret) for name, secret in {"elastic": settings.password_secret, **secrets}.items()
    }


def _users(settings: ElasticsearchSettings, view: FleetView) -> dict[str, tuple[str, list[str] | None]]:
    """Return users with the name of their password's secret and their roles; built-in ones have no roles of ours."""
    found: dict[str, tuple[str, list[str] | None]] = {
        READER: (settings.reader_password_secret, [READER]),
        WRITER: (settings.writer_password_secret, [WRITER]),
    }
    for kibana in view.members(KIBANA):
        found["kibana_system"] = (kibana.settings.password_secret, None)
    for member in view.members(AGENTS):
        filebeat = member.settings.filebeat
        if member.settings.logs == "filebeat" and filebeat.username != "elastic" and filebeat.password_secret:
            found[filebeat.username] = (filebeat.password_secret, ["rtinfra-writer"])
    return found


def document(settings: ElasticsearchSettings, view: FleetView) -> dict[str, Any]:
    """Return what the setup makes so, each by the path under which it is asked for and put."""
    # Filebeat writes mxrc-logs-DAY for all tenants, the gateways mxrc-logs-TENANT-DAY.
    names = {LOG_INDEX: None, **{f"{LOG_INDEX}-{tenant}": tenant for tenant in view.telemetry.tenants}}
    every_index = [f"{LOG_INDEX}-*"]
    return {
        "url": view.url(settings.port),
        "user": "elastic",
        "password_file": setup_secret_path(NAME, "elastic"),
        "put": {
            # Policies first: an index that is made meanwhile must find its own.
            **{f"/_ilm/policy/{name}": {"policy": lifecycle(view, tenant)} for name, tenant in names.items()},
            **{f"/_index_template/{name}": index_template(settings, view, tenant) for name, tenant in names.items()},
            f"/_security/role/{READER}": _role(every_index, ["read", "view_index_metadata"]),
            f"/_security/role/{WRITER}": _role(
                # auto_configure makes the index of a new day, and maps fields that are new.
                [f"{LOG_INDEX}-{tenant}-*" for tenant in view.telemetry.tenants],
                ["create_doc", "auto_configure"],
            ),
            "/_security/role/rtinfra-writer": _role(
                every_index, ["create_doc", "create_index", "auto_configure"], ["monitor", "read_ilm"]
            ),
        },
        "users": {
            user: {"password_file": setup_secret_path(NAME, f"user-{user}"), "roles": roles}
            for user, (_, roles) in _users(settings, view).items()
        },
    }


def _role(names: list[str], privileges: list[str], cluster: list[str] | None = None) -> dict[str, Any]:
    """Return a role that may do this and nothing else: what is empty is said, so that more is a difference."""
    return {
        "cluster": cluster or [],
        "indices": [{"names": names, "privileges": privileges}],
        "applications": [],
        "run_as": [],
    }


def lifecycle(view: FleetView, tenant: str | None) -> dict[str, Any]:
    """Return the lifecycle of a tenant's indices, or of those that all tenants share: the longest of theirs.

    An index holds one day and its age counts from the day's beginning: hence one day more than logs are kept.
    """
    tenants = view.telemetry.tenants
    kept = tenants[tenant].logs_retention if tenant else max(each.logs_retention for each in tenants.values())
    hours = math.ceil(kept.seconds / 3600) + 24
    return {"phases": {"hot": {"actions": {}}, "delete": {"min_age": f"{hours}h", "actions": {"delete": {}}}}}


def index_template(settings: ElasticsearchSettings, view: FleetView, tenant: str | None) -> dict[str, Any]:
    """Return the index template of the application's logs (OB-2), or the one for those of a tenant only."""
    name = f"{LOG_INDEX}-{tenant}" if tenant else LOG_INDEX
    fields = {
        "@timestamp": "date",
        "log.level": "keyword",
        "process.name": "keyword",
        "message": "text",
        "trace.id": "keyword",
        "mxrc.task_id": "keyword",
    }
    return {
        "index_patterns": [f"{name}-*"],
        # Elasticsearch has a template of its own for logs-*; Filebeat's has 150. The highest that fits wins.
        # Two that fit must not be equal: with tenants called a and a-b, the longer name is meant.
        "priority": 500 + len(tenant or ""),
        "template": {
            "settings": {
                "index": {
                    "number_of_shards": 1,
                    "number_of_replicas": min(1, len(view.members(ELASTICSEARCH)) - 1)
                    if view.members(ELASTICSEARCH)
                    else 0,
                    # Set, because an index without it stops refreshing when nobody searches.
                    "refresh_interval": f"{round(settings.refresh_interval.milliseconds)}ms",
                    "lifecycle": {"name": name},
                }
            },
            "mappings": {"properties": {name: {"type": kind} for name, kind in fields.items()}},
        },
    }


def _request(member: Member[ElasticsearchSettings], trace: str) -> Request:
    body = json.dumps({"size": 1, "query": {"query_string": {"query": f'"{trace}"'}}}).encode()
    return Request(
        member.url(member.settings.port, "/_search"),
        method="POST",
        body=body,
        headers={"Content-Type": "application/json"},
    )


def _records(document: Json) -> str:
    hits = document.get("hits", {}).get("hits", [])
    return json.dumps(hits[0]["_source"]) if hits else ""


def _options(links: Links) -> dict[str, object]:
    found: dict[str, object] = {
        # Filebeat's indices have a day in their names, those of the gateways a tenant, too.
        "index": f"{LOG_INDEX}-*",
        "timeField": "@timestamp",
        "logMessageField": "message",
        "logLevelField": "log.level",
    }
    if links.traces:
        found["dataLinks"] = [{"field": "trace.id", **trace_link(links.traces)}]
    return found


ROLE = Role(
    section=ELASTICSEARCH,
    state=state,
    tier=Tier.STORES,
    listens=(
        # Of the agents Filebeat writes here.
        Listener(port=lambda settings: settings.port, peers=(GATEWAYS, AGENTS, GRAFANA, KIBANA)),
        Listener(port=lambda settings: settings.transport_port, peers=(ELASTICSEARCH,)),
    ),
    store=Store(
        signal=Signal.LOGS,
        exporter="elasticsearch",
        ingest=lambda member: member.url(member.settings.port),
        spreads=True,
        user=WRITER,
        password=lambda settings: settings.writer_password_secret,
        index=LOG_INDEX,
        log_search=LogSearch(
            request=_request,
            records=_records,
            login=("elastic", lambda settings: settings.password_secret),
        ),
    ),
    datasource=Datasource(
        title="Elasticsearch",
        type="elasticsearch",
        signal=Signal.LOGS,
        url=lambda member: member.url(member.settings.port),
        options=_options,
        reader=Reader(READER, "elastic_reader", lambda settings: settings.reader_password_secret),
        logs_query=lambda trace, service: f'trace.id:"{trace}"',
    ),
)
