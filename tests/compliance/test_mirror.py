"""The offline mirror, and hosts that get everything from it.

That a host can reach no other address is the network's job: a firewall or the absence of a route. Here it is shown that
nothing on the host would try to.
"""

from datetime import UTC, datetime, timedelta

import pytest

from roles.host import HostConfig
from roles.mirror_client.model import IMAGES, KEY, MIRROR_CLIENT, REPOSITORY, SOURCE, MirrorClientSettings
from roles.mirror_place import MirrorPlace
from roles.mirror_server.model import MIRROR_SERVER, REGISTRY_UNIT, WEB_UNIT, MirrorServerSettings
from roles.mirror_server.role import names
from rtinfra.facts.http import loopback
from rtinfra.facts.mirror import normalised
from rtinfra.limits import project_limits
from rtinfra.verify import expect
from rtinfra.verify.look.answers import Answers
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.look.mirror_client import MirrorClient, pip_required
from rtinfra.verify.look.mirror_server import UPLOAD, MirrorServer, requests
from rtinfra.verify.look.units import Units
from rtinfra.verify.snapshot import Snapshot

client = pytest.mark.on("mirror_client")
server = pytest.mark.on("mirror_server")

_OK, _BAD_REQUEST, _NOT_ALLOWED = 200, 400, 405


@pytest.fixture
def using(config: HostConfig) -> MirrorClientSettings:
    """The settings of a host that uses the mirror."""
    assert config.get(MIRROR_CLIENT) is not None
    if not config[MIRROR_CLIENT].enabled:
        expect.not_applicable("mirror_client.enabled is false: the host uses what was configured before")
    return config[MIRROR_CLIENT]


@pytest.fixture
def seen(snapshot: Snapshot, using: MirrorClientSettings) -> MirrorClient:
    """What was seen of a client."""
    return expect.found(snapshot.mirror_client, "apt and its sources", "the host does not tell")


@pytest.fixture
def serving(config: HostConfig) -> MirrorServerSettings:
    """The settings of the mirror's host."""
    assert config.get(MIRROR_SERVER) is not None
    return config[MIRROR_SERVER]


@pytest.fixture
def served(snapshot: Snapshot) -> MirrorServer:
    """What was seen of the mirror's host."""
    return expect.found(snapshot.mirror_server, "what the mirror serves", "the host does not tell")


@client
@pytest.mark.control(id="OF-1.1", severity="critical", title="Software comes from the mirror and from nowhere else")
def test_only_source(seen: MirrorClient, mirror: MirrorPlace, config: HostConfig) -> None:
    expect.equal(list(seen.source_files), [SOURCE], "files with sources")
    repository = f"file:{mirror.live}/apt/" if config.get(MIRROR_SERVER) is not None else f"{mirror.url}/apt/"
    expect.equal(sorted({target.repository for target in seen.targets}), [repository], "what apt would ask")


@client
@pytest.mark.control(id="OF-1.2", severity="critical", title="Software is believed only with the mirror's signature")
def test_only_key(seen: MirrorClient) -> None:
    expect.equal(sorted({target.signed_by for target in seen.targets}), [KEY], "key that has to sign")
    expect.that(
        seen.trusts_the_live_key, "another key" if seen.key else "no key", "the mirror's key", "key that is trusted"
    )


@client
@pytest.mark.control(id="OF-1.3", severity="critical", title="The mirror answers, with a valid and fresh signature")
def test_fresh_update(seen: MirrorClient) -> None:
    said = "; ".join(seen.errors) or "no answer"
    expect.that(seen.updated == 0, "no error" if seen.updated == 0 else said, "no error", "a fresh look at the mirror")
    expect.found(seen.index, "signed index", "none came")


@client
@pytest.mark.control(id="OF-1.4", severity="high", title="The mirror's content will not expire soon")
def test_validity(seen: MirrorClient, computer: Computer, using: MirrorClientSettings) -> None:
    index = expect.found(seen.index, "signed index", "none came")
    valid_until = expect.found(index.valid_until, "end of its validity", "it has none")
    left = valid_until - datetime.fromtimestamp(computer.state.clock, UTC)
    expect.at_least(round(left / timedelta(days=1), 1), using.warn_days, "valid for", "days")


@client
@pytest.mark.control(id="OF-1.5", severity="high", title="The clock is not behind the mirror's content")
def test_clock(seen: MirrorClient, computer: Computer) -> None:
    index = expect.found(seen.index, "signed index", "none came")
    clock = datetime.fromtimestamp(computer.state.clock, UTC)
    expect.that(clock >= index.date, f"{clock:%F %T} UTC", f"not before {index.date:%F %T} UTC", "clock")


@client
@pytest.mark.control(id="OF-1.6", severity="high", title="Expired, unsigned or undated software lists are refused")
def test_options(seen: MirrorClient) -> None:
    required = {
        "Acquire::Check-Valid-Until": "true",
        "Acquire::Check-Date": "true",
        "Acquire::AllowInsecureRepositories": "false",
        "APT::Get::AllowUnauthenticated": "false",
        "APT::Install-Recommends": "false",
    }
    expect.entries(seen.options, required, "options of apt")


@client
@pytest.mark.control(id="OF-1.7", severity="high", title="Python packages come from the mirror and from nowhere else")
def test_pip(seen: MirrorClient, mirror: MirrorPlace) -> None:
    expect.equal(dict(seen.pip), pip_required(mirror), "settings of pip")


@client
@pytest.mark.control(id="OF-1.8", severity="high", title="Container images come from the mirror and from nowhere else")
def test_images(seen: MirrorClient, mirror: MirrorPlace) -> None:
    policy = seen.image_policy
    expect.equal(policy.get("default"), [{"type": "reject"}], "images of any origin")
    expect.equal(list(policy.get("transports", {}).get("docker", {})), [IMAGES], "images that are accepted")
    if seen.registries is not None:
        places = {
            name: about.get("Location") if isinstance(about, dict) else about for name, about in seen.registries.items()
        }
        expect.equal(places, {IMAGES: f"{mirror.netloc}/{REPOSITORY}"}, "registries of Podman")


@client
@pytest.mark.control(id="OF-1.9", severity="high", title="Installed software has exactly the mirror's versions")
def test_versions(seen: MirrorClient, using: MirrorClientSettings) -> None:
    if not using.follow:
        expect.not_applicable("mirror_client.follow is false")
    expect.equal(seen.recorded, expect.found(seen.live, "live release", "none"), "release that is followed")
    expect.nothing(seen.off_version, "packages that apt would change")


@server
@pytest.mark.control(id="OF-1.20", severity="critical", title="The mirror serves its live release, encrypted")
def test_served(served: MirrorServer, units: Units) -> None:
    for unit in (WEB_UNIT, REGISTRY_UNIT):
        expect.entries(units.of(unit), {"ActiveState": "active", "UnitFileState": "enabled"}, unit)
    status, content = served.release
    expect.that(" 200 " in f"{status} ", status or "no answer", "200 OK", "answer to those who know its certificate")
    expect.found(content.get("name"), "name of the release", "nothing")


@server
@pytest.mark.control(id="OF-1.21", severity="high", title="The mirror's certificate is for its address and lasts")
def test_certificate(
    served: MirrorServer, serving: MirrorServerSettings, mirror: MirrorPlace, computer: Computer
) -> None:
    certificate = expect.found(served.certificate, "certificate", "none that its authority vouches for")
    required = {normalised(name) for name in names(serving, mirror)}
    expect.nothing(required - certificate.names, "names and addresses it is not for")
    left = certificate.ends - datetime.fromtimestamp(computer.state.clock, UTC)
    expect.at_least(left.days, project_limits().certificate_left.seconds / 86400, "valid for", "days")


@server
@pytest.mark.control(id="OF-1.22", severity="high", title="The mirror cannot be reached without encryption")
def test_no_plain_http(
    served: MirrorServer, serving: MirrorServerSettings, mirror: MirrorPlace, answers: Answers
) -> None:
    plain = answers.last(requests(mirror, serving.registry_port)[0].url)
    expect.equal(plain.status, _BAD_REQUEST, "status of a plain request")
    expect.nothing((address for address in served.listening if address.endswith(":80")), "listeners on port 80")
    registry = [address for address in served.listening if address.endswith(f":{serving.registry_port}")]
    expect.equal(registry, [f"127.0.0.1:{serving.registry_port}"], "where the image registry listens")


@server
@pytest.mark.control(id="OF-1.23", severity="high", title="The mirror's image registry answers and takes nothing in")
def test_registry(served: MirrorServer, serving: MirrorServerSettings, answers: Answers) -> None:
    expect.that(" 200 " in f"{served.registry} ", served.registry or "no answer", "200 OK", "registry")
    expect.that(" 405 " in f"{served.upload} ", served.upload or "no answer", "405 Not Allowed", "an upload")
    direct = answers.last(loopback(serving.registry_port, UPLOAD))
    expect.equal(direct.status, _NOT_ALLOWED, "status of an upload past the web server")
    expect.equal(answers.last(loopback(serving.registry_port, "/v2/")).status, _OK, "status of the registry itself")


@server
@pytest.mark.control(id="OF-1.24", severity="critical", title="Nobody but root can read the mirror's private keys")
def test_private_keys(served: MirrorServer) -> None:
    keys = expect.found(served.private or None, "private keys", "none")
    readable = (path for path, access in keys.items() if not access.endswith("00 root"))
    expect.nothing(readable, "keys that others can read")


@server
@pytest.mark.control(id="OF-1.25", severity="high", title="What the mirror serves is what was published last")
def test_newest_release(served: MirrorServer) -> None:
    _, content = served.release
    newest = max(served.published, key=lambda one: str(one.get("date")), default={})
    expect.equal(content.get("name"), expect.found(newest.get("name"), "published release", "none"), "live release")
