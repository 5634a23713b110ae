"""What the `elasticsearch` role puts on a host."""

from __future__ import annotations

import math
from typing import Any

from roles.elasticsearch.model import ElasticsearchSettings
from roles.site import Part, Site
from rtinfra import quadlet
from rtinfra.operations.managed import Action, File
from rtinfra.quadlet import Account, Container, config_dir, config_file, secret_file
from rtinfra.render import render

NAME = "elasticsearch"
ACCOUNT = Account("rtinfra-elasticsearch", 429)
#: Below the program's own configuration directory: it may read certificates nowhere else, and without the files that
#: the image has there it does not start.
MOUNT = "/usr/share/elasticsearch/config/rtinfra"
DATA = "/usr/share/elasticsearch/data"
#: Index template, lifecycle policy and prefix of the indices of the application's logs (OB-1, OB-2).
LOGS = "mxrc-logs"
READER = "rtinfra-reader"

_SYSCTL_FILE = "/etc/sysctl.d/60-rtinfra-elasticsearch.conf"
_SYSCTL = Action("sysctl-elasticsearch", f"sysctl -q -p {_SYSCTL_FILE}")


def part(settings: ElasticsearchSettings, site: Site) -> Part:
    """Return containers, files, units and packages.

    Raises:
        ValueError: several members without certificates: Elasticsearch refuses to form such a cluster.
    """
    members = site.members(NAME)
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
            secret_file(NAME, "password", site.secrets.read(settings.password_secret), ACCOUNT),
            *_setup_secrets(settings, site),
            *_certificates(settings, site),
        ),
        config_mount=MOUNT,
        data={NAME: DATA},
        environment=environment(settings, site),
        environment_files=(f"{config_dir(NAME)}/java.env",),
        # Without a password this answers 401, and only once the node serves requests. The setup waits for yellow.
        ready=f"http://{site.address}:{settings.port}/_cluster/health?wait_for_status=yellow",
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
    if members and members[0].host != site.host:
        return Part(containers=(container,), paths=(sysctl,))
    return Part(
        containers=(container,),
        paths=(sysctl, *quadlet.setup(NAME, "Index template, lifecycle and users", document(settings, site))),
        units=(quadlet.setup_unit(NAME),),
        packages=("python3",),
    )


def environment(settings: ElasticsearchSettings, site: Site) -> dict[str, str]:
    """Return the settings of a node; the image turns variables with a dot in their names into settings."""
    members = site.members(NAME)
    tls = settings.transport_tls is not None
    found = {
        "cluster.name": "rtinfra",
        "node.name": site.host,
        "network.host": site.address,
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
        seeds = (f"{member.address}:{member.settings.transport_port}" for member in members)
        found["discovery.seed_hosts"] = ",".join(seeds)
        # Only looked at while no cluster was ever formed; the same on all members.
        found["cluster.initial_master_nodes"] = ",".join(member.host for member in members)
    else:
        found["discovery.type"] = "single-node"
    return found


def _certificates(settings: ElasticsearchSettings, site: Site) -> tuple[File, ...]:
    tls = settings.transport_tls
    if tls is None:
        return ()
    secrets = {"ca.pem": tls.ca_secret, "node.pem": tls.certificate_secret, "node.key": tls.key_secret}
    return tuple(
        secret_file(NAME, name, site.secrets.read(secret) + b"\n", ACCOUNT) for name, secret in secrets.items()
    )


def _setup_secrets(settings: ElasticsearchSettings, site: Site) -> tuple[File, ...]:
    """Passwords of the users that the setup makes, one file for each user."""
    secrets = {user: name for user, (name, _) in _users(settings, site).items()}
    return tuple(secret_file(NAME, f"user-{user}", site.secrets.read(name), ACCOUNT) for user, name in secrets.items())


def _users(settings: ElasticsearchSettings, site: Site) -> dict[str, tuple[str, list[str] | None]]:
    """Return users with the name of their password's secret and their roles; built-in ones have no roles of ours."""
    found: dict[str, tuple[str, list[str] | None]] = {READER: (settings.reader_password_secret, [READER])}
    for member in site.members("kibana"):
        found["kibana_system"] = (member.settings.password_secret, None)
    for member in site.members("agents"):
        filebeat = member.settings.filebeat
        if member.settings.logs == "filebeat" and filebeat.username != "elastic":
            found[filebeat.username] = (filebeat.password_secret, ["rtinfra-writer"])
    return found


def document(settings: ElasticsearchSettings, site: Site) -> dict[str, Any]:
    """Return what the setup makes so: everything is a PUT of the whole thing, except users who have it already."""
    directory = config_dir(NAME)
    # Filebeat writes mxrc-logs-DAY for all tenants, the gateways mxrc-logs-TENANT-DAY.
    names = {LOGS: None, **{f"{LOGS}-{tenant}": tenant for tenant in site.telemetry.tenants}}
    index = {"names": [f"{LOGS}-*"]}
    return {
        "url": f"http://{site.address}:{settings.port}",
        "user": "elastic",
        "password_file": f"{directory}/password",
        "put": {
            # Policies first: an index that is made meanwhile must find its own.
            **{f"/_ilm/policy/{name}": {"policy": lifecycle(site, tenant)} for name, tenant in names.items()},
            **{f"/_index_template/{name}": index_template(settings, site, tenant) for name, tenant in names.items()},
            f"/_security/role/{READER}": {
                "indices": [{**index, "privileges": ["read", "view_index_metadata"]}],
            },
            "/_security/role/rtinfra-writer": {
                "cluster": ["monitor", "read_ilm"],
                "indices": [{**index, "privileges": ["create_doc", "create_index", "auto_configure"]}],
            },
        },
        "users": {
            user: {"password_file": f"{directory}/user-{user}", "roles": roles}
            for user, (_, roles) in _users(settings, site).items()
        },
    }


def lifecycle(site: Site, tenant: str | None) -> dict[str, Any]:
    """Return the lifecycle of a tenant's indices, or of those that all tenants share: the longest of theirs.

    An index holds one day and its age counts from the day's beginning: hence one day more than logs are kept.
    """
    tenants = site.telemetry.tenants
    kept = tenants[tenant].logs_retention if tenant else max(each.logs_retention for each in tenants.values())
    hours = math.ceil(kept.seconds / 3600) + 24
    return {"phases": {"hot": {"actions": {}}, "delete": {"min_age": f"{hours}h", "actions": {"delete": {}}}}}


def index_template(settings: ElasticsearchSettings, site: Site, tenant: str | None) -> dict[str, Any]:
    """Return the index template of the application's logs (OB-2), or the one for those of a tenant only."""
    name = f"{LOGS}-{tenant}" if tenant else LOGS
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
                    "number_of_replicas": min(1, len(site.members(NAME)) - 1) if site.members(NAME) else 0,
                    # Set, because an index without it stops refreshing when nobody searches.
                    "refresh_interval": f"{round(settings.refresh_interval.milliseconds)}ms",
                    "lifecycle": {"name": name},
                }
            },
            "mappings": {"properties": {name: {"type": kind} for name, kind in fields.items()}},
        },
    }
