"""What real clients make of a published mirror: apt, docker-registry with skopeo, pip."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rtinfra.local import programs
from rtinfra.local.errors import LocalError
from rtinfra.local.programs import Tool
from rtinfra.local.progress import Reporter
from rtinfra.mirror import audit, gpg, release, trust
from rtinfra.mirror.model import Lock
from rtinfra.mirror.trust import RefusedKey
from tests.unit.mirror_clients import Apt, environment, pip, running_registry, serving
from tests.unit.mirror_site import Site, site

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


@pytest.fixture
def address(here: Site) -> Iterator[str]:
    here.mirror.published.mkdir(parents=True)
    with serving(here.mirror.published) as url:
        yield f"{url}/current"


def publish(here: Site, lock: Lock, at: datetime | None = None, *, again: bool = False) -> release.Publication:
    return release.publish(here.mirror, lock.id, now=at or now(), report=Reporter(), again=again)


def told(here: Site, at: datetime | None = None) -> str:
    found = audit.audit(here.mirror, now=at or now(), report=Reporter())
    return "\n".join(f"{finding.file} {finding.problem}; {finding.next_step}" for finding in found)


@pytest.fixture
def first_lock(here: Site) -> Lock:
    packages = [here.package("base"), here.package("tool", depends="base (>= 1)")]
    return here.imported(here.lock(packages, created=now() - 3 * DAY))


@pytest.fixture
def client(here: Site, address: str, tmp_path: Path) -> Callable[[str], Apt]:
    def made(name: str) -> Apt:
        key = (here.mirror.current / release.KEY).read_bytes()
        return Apt.of(tmp_path / name, f"{address}/apt", key)

    return made


# ---- apt --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "file", "copy"])
def test_apt_installs_from_the_mirror_alone(
    here: Site, address: str, tmp_path: Path, first_lock: Lock, scheme: str
) -> None:
    publish(here, first_lock)
    where = f"{address}/apt" if scheme == "http" else f"{scheme}:{here.mirror.current}/apt"
    apt = Apt.of(tmp_path / "client", where, (here.mirror.current / release.KEY).read_bytes())
    updated = apt.update()
    assert updated.returncode == 0, updated.stdout
    assert "W:" not in updated.stdout
    shown = apt.run("install", "--print-uris", "-o", "Acquire::ForceHash=SHA256", "tool").stdout
    for package in first_lock.packages:
        path = f"pool/{package.sha256[:2]}/{package.sha256}/{package.file_name}"
        assert f"{where}/{path}' {package.file_name} {package.size} SHA256:{package.sha256}" in shown
    loaded = apt.download("tool")
    assert loaded.returncode == 0, loaded.stdout
    if scheme != "file":
        assert apt.downloaded == ["base_1.0-1_amd64.deb", "tool_1.0-1_amd64.deb"]


def test_names_that_addresses_quote_are_found(here: Site, client: Callable[[str], Apt]) -> None:
    odd = here.package("libstdc++6", "2:14.2+b1~rc1-1")
    publish(here, here.imported(here.lock([odd], created=now() - DAY)))
    apt = client("client")
    assert apt.update().returncode == 0
    loaded = apt.download("libstdc++6")
    assert loaded.returncode == 0, loaded.stdout


def served_file(here: Site, name: str) -> Path:
    return next(here.mirror.current.resolve().rglob(name))


def replaced(path: Path, data: bytes) -> None:
    """Change a served file, not the content of the pool that it shares."""
    path.unlink()
    path.write_bytes(data)


def test_a_tampered_package_is_refused_by_apt_and_named_by_the_audit(
    here: Site, client: Callable[[str], Apt], first_lock: Lock
) -> None:
    publish(here, first_lock)
    path = served_file(here, "base_1.0-1_amd64.deb")
    data = path.read_bytes()
    replaced(path, data.replace(b"base 1.0-1\n", b"evil 1.0-1\n"))
    apt = client("client")
    assert apt.update().returncode == 0
    loaded = apt.download("tool")
    assert loaded.returncode == 100 and "Hash Sum mismatch" in loaded.stdout
    assert f"{path} has sha256 " in told(here)
    replaced(path, data[:-7])
    loaded = apt.download("tool")
    assert loaded.returncode == 100 and "unexpected size" in loaded.stdout
    assert f"{path} has {len(data) - 7} bytes, {len(data)} are expected" in told(here)
    assert publish(here, first_lock).changed and told(here) == ""
    assert apt.update().returncode == 0 and apt.download("tool").returncode == 0


def test_a_package_tampered_in_the_pool_is_named(here: Site, first_lock: Lock) -> None:
    publish(here, first_lock)
    path = here.mirror.pool.path(first_lock.packages[0].sha256)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\0")
    assert f"{path} base_1.0-1_amd64.deb in the pool is not what was locked" in told(here)
    os.truncate(path, 50)
    assert f"{path} base_1.0-1_amd64.deb in the pool is truncated: it has 50 bytes" in told(here)
    path.unlink()
    assert f"{path} base_1.0-1_amd64.deb is missing from the pool; import" in told(here)


def test_a_damaged_pool_is_whole_again_after_the_steps_that_the_audit_says(here: Site, first_lock: Lock) -> None:
    publish(here, first_lock)
    content = first_lock.contents()[1]
    path = here.mirror.pool.path(content.sha256)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"base 1.0-1\n", b"evil 1.0-1\n"))
    assert "remove this file, import the bundle that has it again, then: rtinfra mirror publish" in told(here)
    path.unlink()
    here.mirror.pool.add_bytes(content, data)
    assert served_file(here, content.name).read_bytes() != data
    assert publish(here, first_lock).changed
    assert served_file(here, content.name).read_bytes() == data and told(here) == ""


def test_an_unsigned_or_foreign_signed_index_is_refused_with_both_fingerprints(
    here: Site, client: Callable[[str], Apt], first_lock: Lock, tmp_path: Path
) -> None:
    ours = publish(here, first_lock).release.fingerprint
    path = served_file(here, "InRelease")
    text = path.with_name("Release").read_bytes()
    replaced(path, text)
    path.with_name("Release").unlink()
    refused = client("unsigned").update()
    assert refused.returncode == 100 and "signed" in refused.stdout.lower()
    assert f"{path} {path} is not signed; the key of this mirror is {ours}" in told(here)
    stranger = gpg.signing_key(tmp_path / "stranger", Reporter())
    replaced(path, stranger.clearsign(text, now()))
    refused = client("foreign").update()
    assert refused.returncode == 100
    assert "NO_PUBKEY" in refused.stdout or "Missing key" in refused.stdout, refused.stdout
    assert f"is signed by another key: {stranger.fingerprint}; the key of this mirror is {ours}" in told(here)


def test_a_change_of_keys_loses_no_client_and_after_it_the_old_key_is_worth_nothing(
    here: Site, client: Callable[[str], Apt], first_lock: Lock
) -> None:
    """Hosts that were deployed before the change, in it, and after it; then an index of the old key alone."""
    old = publish(here, first_lock).release
    replayed = served_file(here, "InRelease").read_bytes()
    before = client("before")
    gpg.rotate(here.mirror.keys, 30 * DAY, now(), Reporter())
    assert f"is of the key {old.fingerprint}, and what signs now is" in told(here)
    assert publish(here, first_lock).changed and told(here) == ""
    within = client("within")
    assert before.update().returncode == 0 and within.update().returncode == 0
    gpg.revoke(here.mirror.keys, old.fingerprint, now(), Reporter())
    assert publish(here, first_lock).changed and told(here) == ""
    after = client("after")
    assert within.update().returncode == 0 and after.update().returncode == 0
    assert before.update().returncode == 100, "it was not deployed in the overlap"
    replaced(served_file(here, "InRelease"), replayed)
    # One that has no index yet, which a server could say is still the newest.
    assert client("late").update().returncode == 100


def test_a_key_that_was_given_up_signs_nothing_when_a_backup_brings_it_back(here: Site, first_lock: Lock) -> None:
    publish(here, first_lock)
    stolen = gpg.signing_key(here.mirror.keys, Reporter()).fingerprint
    trust.refuse(here.mirror, (RefusedKey("repository", stolen, now().date()),))
    with pytest.raises(LocalError, match=f"the key {stolen} would sign the repository, but it was given up"):
        publish(here, first_lock, again=True)


def test_an_expired_index_is_refused_until_it_is_signed_again(here: Site, client: Callable[[str], Apt]) -> None:
    made = now() - 100 * DAY
    lock = here.imported(here.lock([here.package("base")], created=made))
    publish(here, lock, made + DAY)
    apt = client("client")
    refused = apt.update()
    assert refused.returncode == 100 and "is expired" in refused.stdout
    assert "clients refuse it; import and publish a newer bundle, or sign the same content again" in told(here)
    publish(here, lock, again=True)
    assert apt.update().returncode == 0 and told(here) == ""


def test_an_index_from_the_future_is_refused_and_the_clock_is_named(here: Site, client: Callable[[str], Apt]) -> None:
    made = now() + 9 * DAY
    lock = here.imported(here.lock([here.package("base")], created=made))
    publish(here, lock, made + DAY)
    refused = client("client").update()
    assert refused.returncode == 100 and "is not valid yet" in refused.stdout
    assert f"is dated {made:%Y-%m-%d %H:%M:%S} UTC, and this machine's clock says" in told(here)


def test_a_replayed_index_is_ignored_and_a_rollback_is_taken(here: Site, client: Callable[[str], Apt]) -> None:
    old = here.imported(here.lock([here.package("base")], created=now() - 3 * DAY))
    new = here.imported(here.lock([here.package("base", "2.0-1")], created=now() - 2 * DAY))
    first = publish(here, old).release
    apt = client("client")

    def candidate() -> str:
        assert apt.update().returncode == 0
        return apt.run("install", "--simulate", "base").stdout

    assert "Inst base (1.0-1" in candidate()
    publish(here, new)
    assert "Inst base (2.0-1" in candidate()
    here.mirror.current.unlink()
    here.mirror.current.symlink_to(first.name)
    # No word from apt: that is why going back needs a newer date.
    assert "Inst base (2.0-1" in candidate()
    assert f"release {first.name} is live, but not the last one recorded" in told(here)
    assert publish(here, old).changed
    assert "Inst base (1.0-1" in candidate()
    publish(here, new)
    assert "Inst base (2.0-1" in candidate()
    release.rollback(here.mirror, None, now=now(), report=Reporter())
    assert "Inst base (1.0-1" in candidate()
    assert told(here) == ""


def test_clients_with_the_index_before_still_find_what_it_names(
    here: Site, client: Callable[[str], Apt], first_lock: Lock
) -> None:
    publish(here, first_lock)
    apt = client("client")
    assert apt.update().returncode == 0
    publish(here, here.imported(here.lock([here.package("base", "2.0-1")], created=now() - DAY)))
    assert apt.download("tool").returncode == 0
    assert apt.downloaded == ["base_1.0-1_amd64.deb", "tool_1.0-1_amd64.deb"]


def test_a_missing_dependency_is_said_by_apt(here: Site, client: Callable[[str], Apt]) -> None:
    publish(here, here.imported(here.lock([here.package("tool", depends="absent")], created=now() - DAY)))
    apt = client("client")
    assert apt.update().returncode == 0
    refused = apt.download("tool")
    assert refused.returncode == 100 and "tool : Depends: absent but it is not installable" in refused.stdout


def test_another_architecture_is_not_offered(here: Site, client: Callable[[str], Apt], first_lock: Lock) -> None:
    publish(here, first_lock)
    apt = client("client")
    settings = apt.root / "apt.conf"
    settings.write_text(settings.read_text().replace('"amd64"', '"arm64"'))
    apt.update()
    assert "Unable to locate package" in apt.download("tool").stdout


# ---- images -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's docker-registry, unpacked: its package would start a service."""
    if program := programs.find("docker-registry"):
        return program
    work = tmp_path_factory.mktemp("docker-registry")
    try:
        programs.execute(["apt-get", "download", "docker-registry"], timeout=120, cwd=work)
    except LocalError as error:
        pytest.skip(f"docker-registry cannot be downloaded: {error.detail[-200:]}")
    (package,) = work.glob("*.deb")
    programs.execute(["dpkg-deb", "--extract", package, work / "tree"], timeout=60)
    return work / "tree/usr/bin/docker-registry"


def skopeo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    programs.ensure((Tool("skopeo", "skopeo"),), Reporter())
    return subprocess.run(
        ["skopeo", "--insecure-policy", *map(str, arguments)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip


def test_a_registry_serves_images_by_tag_and_by_digest(here: Site, docker_registry: Path, tmp_path: Path) -> None:
    old = here.imported(here.lock(images=[here.image("hello", "1.2", "hello")], created=now() - 3 * DAY))
    new = here.imported(here.lock(images=[here.image("hello", "1.3", "bye")], created=now() - 2 * DAY))
    publish(here, old)
    publish(here, new)
    storage = here.mirror.current / release.REGISTRY
    with running_registry(docker_registry, storage, tmp_path) as address:
        source = f"docker://{address}/rtinfra/hello"
        by_tag = skopeo("inspect", "--tls-verify=false", f"{source}:1.3")
        assert by_tag.returncode == 0, by_tag.stdout
        shown = json.loads(by_tag.stdout)
        assert shown["Digest"] == f"sha256:{new.images[0].manifest.sha256}"
        assert shown["RepoTags"] == ["1.3"]
        for lock in (old, new):
            digest = lock.images[0].manifest.sha256
            target = tmp_path / digest
            copied = skopeo(
                *("copy", "--preserve-digests", "--src-tls-verify=false"),
                *(f"{source}@sha256:{digest}", f"oci:{target}:copied"),
            )
            assert copied.returncode == 0, copied.stdout
            (entry,) = json.loads((target / "index.json").read_text())["manifests"]
            assert entry["digest"] == f"sha256:{digest}"
        pushed = skopeo("copy", "--dest-tls-verify=false", f"oci:{target}:copied", f"{source}:mine")
        assert pushed.returncode != 0
    assert told(here) == ""


def test_a_tampered_blob_is_refused_by_the_client_and_named_by_the_audit(
    here: Site, docker_registry: Path, tmp_path: Path
) -> None:
    lock = here.imported(here.lock(images=[here.image("hello", "1.2", "hello")], created=now() - DAY))
    publish(here, lock)
    blob = max(lock.images[0].blobs, key=lambda each: each.size)
    path = next(here.mirror.current.resolve().rglob(f"{blob.sha256}/data"))
    replaced(path, bytes(blob.size))
    with running_registry(docker_registry, here.mirror.current / release.REGISTRY, tmp_path) as address:
        source = f"docker://{address}/rtinfra/hello@sha256:{lock.images[0].manifest.sha256}"
        copied = skopeo("copy", "--preserve-digests", "--src-tls-verify=false", source, f"oci:{tmp_path}/copy:copied")
    assert copied.returncode != 0 and " match" in copied.stdout, copied.stdout
    assert f"{path} has sha256 " in told(here)


# ---- wheels -----------------------------------------------------------------------------------------------


def test_pip_installs_from_the_mirror_and_checks_hashes(here: Site, address: str, tmp_path: Path) -> None:
    wheel, other = here.wheel("some-thing"), here.wheel("other")
    lock = here.imported(here.lock(wheels=[wheel, other], created=now() - DAY))
    publish(here, lock)
    index = ("--index-url", f"{address}/wheels/simple/")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"Some.Thing==1.0 --hash=sha256:{wheel.sha256}\n")
    loaded = pip("download", *index, "--require-hashes", "--dest", tmp_path / "got", "--requirement", requirements)
    assert loaded.returncode == 0, loaded.stdout
    assert (tmp_path / "got" / wheel.file).read_bytes() == here.mirror.pool.read(wheel.sha256)
    installed = pip("install", *index, "--target", tmp_path / "target", "other")
    assert installed.returncode == 0 and (tmp_path / "target/other.py").exists(), installed.stdout
    absent = pip("download", *index, "--dest", tmp_path / "got", "absent")
    assert "No matching distribution found for absent" in absent.stdout
    path = served_file(here, other.file)
    replaced(path, path.read_bytes().replace(b"TEXT", b"EVIL"))
    refused = pip("download", *index, "--no-cache-dir", "--dest", tmp_path / "evil", "other")
    assert refused.returncode != 0 and "HASH" in refused.stdout.upper(), refused.stdout
    assert f"{path} has sha256 " in told(here)
