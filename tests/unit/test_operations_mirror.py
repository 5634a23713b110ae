"""What the mirror's operations send to hosts; their scripts run for real by sh, with real openssl and a real tree."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.exceptions import OperationError
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.context import ctx_state

from roles.mirror_client import role as client
from rtinfra.facts import mirror as facts
from rtinfra.facts.mirror import Certificate, LiveMirror, MirrorState, normalised, parse_mirror_state
from rtinfra.operations import images, mirror
from rtinfra.operations.packages import AS_BEFORE, IN_ORDER
from rtinfra.operations.resources import File
from rtinfra.operations.scripts import script as complete
from tests.fake_hosts import known_marker
from tests.unit.mirror_fleet import INDEX, KEY_TEXT, LIVE, NAME, NOW, PEM, PLACE, release_lines, served_answer
from tests.unit.test_operations import run

SERVER = "@fake/golden"
SERVING = "\n".join(served_answer())


def found(*paths: File, more: str = "") -> str:
    """What the fact about files answers when these are on the host."""
    stats = [f"644\troot\troot\tregular file\t{path.path}" for path in paths] + ([more] if more else [])
    return "\n".join(["@@stat", *stats, "@@sha256", *(f"{path.sha256}  {path.path}" for path in paths), "@@pending"])


OURS = [path for path in client.files(PLACE, False, LIVE) if isinstance(path, File)]
RECORD = File(path=facts.RECORD, content=f"{NAME}\n".encode())
ASIDE = f"700\troot\troot\tdirectory\t{facts.SET_ASIDE}"
SETTLED = SERVING + "\n" + found(*OURS, RECORD, more=ASIDE)


def pointed(response: str, follow: bool = True) -> list[str]:
    return run(
        mirror.pointed,
        response,
        server=SERVER,
        directory="/srv/rtinfra-mirror",
        files=partial(client.files, PLACE, False),
        replaced=client.REPLACED,
        follow=follow,
    )


# ---- the fact ---------------------------------------------------------------------------------------------


def test_the_fact_tells_release_and_certificates() -> None:
    state = parse_mirror_state(SERVING.splitlines())
    assert state.release == LIVE.release
    assert state.authority is not None
    assert state.authority.pem == PEM
    assert state.server is not None
    assert state.server.ends == datetime(2029, 1, 1, tzinfo=UTC)
    assert state.server.names == {"192.0.2.5", "mirror"}
    assert state.is_trusted


@pytest.mark.parametrize("missing", ["release", "key", "index"])
def test_a_release_without_one_of_its_parts_is_none(missing: str) -> None:
    state = parse_mirror_state(SERVING.replace(f"@@{missing}\n", "@@other\n").splitlines())
    assert state.release is None


def test_the_fact_on_a_real_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = tmp_path / "published" / "20260101T000000Z-0123456789abcdef"
    (live / "apt" / "dists" / "trixie").mkdir(parents=True)
    (live.parent / "current").symlink_to(live.name)
    # Without a line break at its end: what follows must not be taken for a part of it.
    (live / "release.json").write_text(f'{{"name": "{NAME}"}}')
    (live / "key.asc").write_text(f"{KEY_TEXT}\n")
    lines = [
        "-----BEGIN PGP SIGNED MESSAGE-----",
        "Hash: SHA512",
        "",
        *release_lines(INDEX.date, NOW),
        "SHA256:",
        " ab",
    ]
    (live / "apt" / "dists" / "trixie" / "InRelease").write_text("\n".join(lines))
    monkeypatch.setattr(facts, "CERTIFICATES", str(tmp_path / "certificates"))
    fact = LiveMirror()
    script = str(fact.command(directory=str(tmp_path)).get_raw_value())
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    state = fact.process(said.splitlines())
    assert LIVE.release is not None
    assert state.release == replace(LIVE.release, index=replace(INDEX, valid_until=NOW))
    assert state.authority is None
    assert state.server is None
    assert abs((state.clock - datetime.now(UTC)).total_seconds()) < 60


def test_the_fact_tells_the_images_of_a_real_registry_folder(tmp_path: Path) -> None:
    repositories = tmp_path / "published" / "current" / "registry" / "docker" / "registry" / "v2" / "repositories"
    tag = repositories / "rtinfra" / "jaeger" / "_manifests" / "tags" / "2.0.0"
    (tag / "current").mkdir(parents=True)
    (tag / "current" / "link").write_text("sha256:" + "ab" * 32)
    fact = LiveMirror()
    script = str(fact.command(directory=str(tmp_path)).get_raw_value())
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    images = fact.sections(said)["images"]
    state = parse_mirror_state([*SERVING.splitlines(), "@@images", *images])
    assert state.release is not None
    assert state.release.images == {("rtinfra/jaeger", "2.0.0"): "sha256:" + "ab" * 32}


def test_a_mirror_that_cannot_be_reached_is_named() -> None:
    # Nobody listens on port 1.
    data = {"ssh_hostname": "127.0.0.1", "ssh_port": 1, "ssh_known_hosts_file": "/dev/null"}
    state = State(Inventory(([("mirror", data)], {})), Config(CONNECT_TIMEOUT=2))
    logging.disable(logging.CRITICAL)
    try:
        with ctx_state.use(state), pytest.raises(mirror.MirrorUnreachable, match="the mirror's host mirror cannot be"):
            mirror.asked("mirror", "/srv/rtinfra-mirror")
    finally:
        logging.disable(logging.NOTSET)


# ---- certificates -----------------------------------------------------------------------------------------


def test_good_certificates_stay() -> None:
    assert mirror.renewals(LIVE, ["mirror", "192.0.2.5"], 90) == ([], [])


def test_names_are_compared_in_one_form() -> None:
    assert LIVE.server is not None
    names = frozenset(map(normalised, ("0:0:0:0:0:0:0:1", "Mirror.Example.NET")))
    state = replace(LIVE, server=replace(LIVE.server, names=names))
    assert mirror.renewals(state, ["::1", "mirror.example.net"], 90) == ([], [])


def ending(days: int) -> Certificate:
    return Certificate(PEM, NOW + timedelta(days=days), frozenset({"192.0.2.5", "mirror"}))


@pytest.mark.parametrize(
    ("state", "authority", "server"),
    [
        (replace(LIVE, authority=None, server=None), "is not there yet", "is not there yet"),
        (replace(LIVE, server=ending(89)), "", "ends at 2026-04-09"),
        (replace(LIVE, authority=ending(1)), "ends at 2026-01-11", ""),
        (replace(LIVE, is_trusted=False), "", "is not the authority's"),
        (replace(LIVE, server=replace(ending(800), names=frozenset({"other"}))), "", "is for other, wanted"),
    ],
)
def test_what_asks_for_a_new_certificate(state: MirrorState, authority: str, server: str) -> None:
    found_authority, found_server = mirror.renewals(state, ["192.0.2.5", "mirror"], 90)
    assert "; ".join(found_authority).startswith(authority)
    assert "; ".join(found_server).startswith(server)
    assert bool(found_authority) == bool(authority)
    assert bool(found_server) == bool(server)


def certificates(response: str) -> list[str]:
    return run(
        mirror.certificates,
        response,
        directory="/srv/rtinfra-mirror",
        names=["192.0.2.5", "mirror"],
        ca_days=7300,
        server_days=825,
        renew_days=90,
        unit="nginx.service",
    )


def test_certificates_that_are_right_cost_nothing() -> None:
    assert certificates(SERVING) == []


def test_a_certificate_begins_with_the_release_so_that_one_clock_is_enough_for_both() -> None:
    (command,) = certificates(SERVING.replace("@@trusted\nyes", "@@trusted\n"))
    (arguments, *_) = command.splitlines()
    assert shlex.split(arguments)[2:] == [
        *("server", "IP:192.0.2.5,DNS:mirror", "20260101000000Z", "20460105120000Z", "20280414120000Z"),
        *("/etc/rtinfra/mirror", "/run/rtinfra/pending/restart@nginx.service"),
    ]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    script = (Path(mirror.__file__).parent / "certificates.sh").read_text()

    def call(what: str, names: str = "IP:127.0.0.1,DNS:mirror", begin: str = "20260101000000Z") -> object:
        arguments = [what, names, begin, "20600101000000Z", "20500101000000Z", str(tmp_path / "tls")]
        arguments.append(str(tmp_path / "pending" / "restart@nginx.service"))
        return subprocess.run(["sh", "-c", script, "sh", *arguments], capture_output=True, text=True, check=False)

    return call  # type: ignore[return-value]


def text_of(certificate: Path) -> str:
    command = ["openssl", "x509", "-noout", "-text", "-in", str(certificate)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def verifies(directory: Path) -> bool:
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_ip", "127.0.0.1"]
    command += ["-CAfile", "authority.crt", "server.crt"]
    return subprocess.run(command, cwd=directory, capture_output=True, check=False).returncode == 0


def test_certificates_are_made_and_the_server_is_restarted(make: Callable[..., object], tmp_path: Path) -> None:
    done = make("authority")
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    directory = tmp_path / "tls"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {"authority.key": 0o600, "server.key": 0o600, "authority.crt": 0o644, "server.crt": 0o644}
    text = text_of(directory / "server.crt")
    assert "IP Address:127.0.0.1, DNS:mirror" in text
    assert "Not Before: Jan  1 00:00:00 2026 GMT" in text
    assert "Not After : Jan  1 00:00:00 2050 GMT" in text
    assert verifies(directory)
    assert (tmp_path / "pending" / "restart@nginx.service").exists()


def test_clients_of_the_old_authority_trust_what_the_renewed_one_signs(
    make: Callable[..., object], tmp_path: Path
) -> None:
    directory = tmp_path / "tls"
    make("authority")
    before, keys = (directory / "authority.crt").read_bytes(), (directory / "authority.key").read_bytes()
    make("authority", begin="20260201000000Z")
    assert (directory / "authority.crt").read_bytes() != before
    assert (directory / "authority.key").read_bytes() == keys
    (directory / "authority.crt").write_bytes(before)
    assert verifies(directory)


def test_a_server_certificate_with_other_names_leaves_the_authority(
    make: Callable[..., object], tmp_path: Path
) -> None:
    make("authority")
    before = (tmp_path / "tls" / "authority.crt").read_bytes()
    make("server", "DNS:other")
    assert (tmp_path / "tls" / "authority.crt").read_bytes() == before
    assert "DNS:other" in text_of(tmp_path / "tls" / "server.crt")


def test_names_that_openssl_refuses_leave_everything_as_it_was(make: Callable[..., object], tmp_path: Path) -> None:
    make("authority")
    before = (tmp_path / "tls" / "server.crt").read_bytes()
    done = make("server", "nonsense")
    assert done.returncode != 0  # type: ignore[attr-defined]
    assert done.stderr  # type: ignore[attr-defined]
    assert (tmp_path / "tls" / "server.crt").read_bytes() == before
    assert not list((tmp_path / "tls").glob(".new.*"))


# ---- clients ----------------------------------------------------------------------------------------------


def test_a_settled_client_costs_nothing() -> None:
    assert pointed(SETTLED) == []


def test_a_new_release_is_followed_and_remembered_last() -> None:
    in_order, finish, update, fix, upgrade, as_before, record = pointed(SETTLED.replace(RECORD.sha256, "0" * 64))
    assert (in_order, as_before) == (IN_ORDER, AS_BEFORE)
    assert "dpkg --configure -a" in finish
    assert "apt-get" in update
    assert "update --error-on=any" in update
    assert fix.endswith("--fix-broken install"), "what was half unpacked when the power went"
    assert "--allow-downgrades full-upgrade" in upgrade
    assert "--allow-change-held-packages" not in upgrade
    assert record == "<sync.sh with the files that differ>"


def test_following_can_be_switched_off() -> None:
    assert pointed(SETTLED.replace(RECORD.sha256, "0" * 64), follow=False) == []


def test_another_source_is_set_aside_and_what_it_brought_too() -> None:
    other = "644\troot\troot\tregular file\t/etc/apt/sources.list.d/vendor.list\n@@sha256"
    aside, remove, *rest = pointed(SETTLED.replace("@@sha256", other, 1))
    assert aside.startswith("set -- source /etc/apt/sources.list.d/vendor.list\n")
    assert remove == "<sync.sh with the files that differ>"
    assert len(rest) == 7, "what came from there is brought to the mirror's versions"


def test_a_bare_host_keeps_what_is_replaced() -> None:
    foreign = "644\troot\troot\tregular file\t/etc/pip.conf"
    aside, *_ = pointed(SERVING + "\n" + found(more=foreign))
    assert aside.splitlines()[0] == f"set -- replaced {client.PIP} replaced {client.IMAGE_POLICY}"


def test_a_mirror_without_a_certificate_is_said_so_when_it_counts() -> None:
    with pytest.raises(OperationError, match="has no certificate yet: deploy to it first"):
        pointed(SETTLED.replace("@@authority\n", "@@none\n"))


def test_a_client_that_is_not_pointed_anywhere_has_nothing_to_restore() -> None:
    assert run(mirror.restored, found(), paths=client.paths(PLACE)) == []


def test_taking_it_back_removes_ours_and_restores() -> None:
    remove, restore = run(mirror.restored, found(*OURS, more=ASIDE), paths=client.paths(PLACE))
    assert remove == "<sync.sh with the files that differ>"
    assert "Puts back what set-aside.sh kept" in restore


def test_one_look_at_the_mirror_serves_all_clients() -> None:
    data = {"fake_delay": 0, "fake_delay_jitter": 0, "fake_responses": {"echo @@": SETTLED.splitlines()}}
    names = ["@fake/mirror", *(f"@fake/client-{number}" for number in range(5))]
    state = State(Inventory(([(name, data) for name in names], {})), Config())
    logging.disable(logging.CRITICAL)
    try:
        with known_marker(), ctx_state.use(state):
            connect_all(state)
            add_op(
                state,
                mirror.pointed,
                server="@fake/mirror",
                directory="/srv/rtinfra-mirror",
                files=partial(client.files, PLACE, False),
                replaced=client.REPLACED,
                follow=True,
            )
            run_ops(state)
    finally:
        logging.disable(logging.NOTSET)
    asked = {
        host.name: [str(command) for command in host.connector.executed_commands if "published/current" in str(command)]
        for host in state.inventory
    }
    assert len(asked.pop("@fake/mirror")) == 2, "once to see what would change, once to do it"
    assert not any(asked.values())


def test_a_client_of_the_mirror_pulls_its_images_by_digest() -> None:
    pinned = f"localhost/rtinfra/thing@sha256:{'a' * 64}"
    assert run(images.loaded, "@@images\n", images={pinned: None}) == [f"podman pull --quiet {pinned}"]
    assert run(images.loaded, f"@@images\n{pinned}\n", images={pinned: None}) == []


# ---- set aside and restored, for real ---------------------------------------------------------------------


class Host:
    """A folder that the scripts take for a host's root: every path they are given, or keep things under, is in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "var" / "lib" / "rtinfra" / "mirror-client"

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def write(self, name: str, text: str) -> None:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(text)

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        text = complete(script)
        assert "state=/var/lib/rtinfra/mirror-client" in text
        text = text.replace("state=/var/lib/rtinfra/mirror-client", f"state={self.state}")
        done = subprocess.run(["sh", "-c", text, "sh", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    def set_aside(self, *pairs: tuple[str, str]) -> None:
        self.run("set-aside.sh", *(word for kind, name in pairs for word in (kind, str(self.path(name)))))

    def take_over(self) -> None:
        """What the deploy does after that: ours are there, other sources are gone."""
        self.path("/etc/apt/sources.list.d/debian.sources").unlink(missing_ok=True)
        self.write("/etc/pip.conf", "ours")
        self.write("/etc/containers/policy.json", "ours")

    def give_back(self) -> None:
        """What the deploy does before it restores: ours are gone."""
        self.path("/etc/pip.conf").unlink()
        self.path("/etc/containers/policy.json").unlink()
        self.run("restore.sh")


PAIRS = (
    ("source", "/etc/apt/sources.list.d/debian.sources"),
    ("replaced", "/etc/pip.conf"),
    ("replaced", "/etc/containers/policy.json"),
)


@pytest.fixture
def there(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.write("/etc/apt/sources.list.d/debian.sources", "Types: deb")
    host.path("/etc/apt/sources.list.d/debian.sources").chmod(0o640)
    host.write("/etc/pip.conf", "theirs")
    return host


def test_everything_is_back_as_it_was(there: Host) -> None:
    before = there.path("/etc/apt/sources.list.d/debian.sources").stat()
    there.set_aside(*PAIRS)
    there.take_over()
    there.give_back()
    after = there.path("/etc/apt/sources.list.d/debian.sources")
    assert after.read_text() == "Types: deb"
    assert (after.stat().st_mode, int(after.stat().st_mtime)) == (before.st_mode, int(before.st_mtime))
    assert there.path("/etc/pip.conf").read_text() == "theirs"
    assert not there.path("/etc/containers/policy.json").exists(), "there was none"
    assert not there.state.exists()


def test_nothing_is_taken_away_before_it_is_kept(there: Host) -> None:
    there.set_aside(*PAIRS)
    assert there.path("/etc/apt/sources.list.d/debian.sources").exists()
    assert there.path("/etc/pip.conf").read_text() == "theirs"


def test_a_later_version_of_ours_is_not_taken_for_theirs(there: Host) -> None:
    there.set_aside(*PAIRS)
    there.take_over()
    there.set_aside(("replaced", "/etc/pip.conf"), ("replaced", "/etc/containers/policy.json"))
    there.give_back()
    assert there.path("/etc/pip.conf").read_text() == "theirs"
    assert not there.path("/etc/containers/policy.json").exists()


def test_a_source_that_comes_back_is_set_aside_again_and_neither_is_lost(there: Host) -> None:
    name = "/etc/apt/sources.list.d/debian.sources"
    there.set_aside(*PAIRS)
    there.take_over()
    there.write(name, "newer")
    there.write(f"{there.state}/release".removeprefix(str(there.root)), NAME)
    there.set_aside(("source", name))
    kept = {path.read_text() for path in there.state.rglob("debian.sources*")}
    assert kept == {"Types: deb", "newer"}
    assert not (there.state / "release").exists(), "what it brought is looked at again"
    there.path(name).unlink()
    there.give_back()
    assert there.path(name).read_text() == "newer"
    assert sorted(path.name for path in there.path(name).parent.iterdir()) == ["debian.sources"]


def test_what_is_cut_off_is_completed_by_the_next_run(there: Host) -> None:
    """A run that was killed left half a copy; a restoration that was killed had put back a part."""
    there.set_aside(*PAIRS)
    kept = there.state / "set-aside"
    copy = next(kept.rglob("debian.sources"))
    copy.rename(copy.with_name("debian.sources.new"))
    there.set_aside(*PAIRS)
    there.take_over()
    there.write("/etc/apt/sources.list.d/debian.sources", "Types: deb")
    there.give_back()
    assert there.path("/etc/apt/sources.list.d/debian.sources").read_text() == "Types: deb"
    assert there.path("/etc/pip.conf").read_text() == "theirs"


def test_a_package_that_came_meanwhile_gets_its_own_version(there: Host) -> None:
    there.set_aside(*PAIRS)
    there.take_over()
    there.write("/etc/containers/policy.json.dpkg-dist", "the package's")
    there.give_back()
    assert there.path("/etc/containers/policy.json").read_text() == "the package's"
    assert not there.path("/etc/containers/policy.json.dpkg-dist").exists()


def test_what_somebody_wrote_meanwhile_stays(there: Host) -> None:
    name = "/etc/apt/sources.list.d/debian.sources"
    there.set_aside(*PAIRS)
    there.take_over()
    there.write(name, "somebody's")
    there.give_back()
    assert there.path(name).read_text() == "somebody's"


def test_links_are_kept_as_links(there: Host) -> None:
    name = "/etc/apt/sources.list.d/link.list"
    there.path(name).symlink_to("/nowhere")
    there.set_aside(("source", name), *PAIRS)
    there.path(name).unlink()
    there.take_over()
    there.give_back()
    assert os.readlink(there.path(name)) == "/nowhere"  # noqa: PTH115 - the text of the link itself
