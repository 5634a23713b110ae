"""What sets of packages come to: apt's own solver against archives that are made here, good and broken ones."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rtinfra import deb
from rtinfra.local.archive import Archive, parse_transport
from rtinfra.local.progress import Reporter
from rtinfra.mirror.apt import AptRoot, Solution
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.model import LOCAL
from rtinfra.mirror.required import BASE_SET, PackageSet
from tests.unit.mirror_archive import Key, Upstream, build, settings, soon


@pytest.fixture(scope="module")
def keys() -> Iterator[tuple[Key, Key]]:
    # Sockets of gpg's agent: their path may not be long.
    with tempfile.TemporaryDirectory(prefix="k-", dir="/tmp") as home:
        both = Key(Path(home) / "a"), Key(Path(home) / "b")
        yield both
        for key in both:
            key.stop()


@pytest.fixture
def upstream(tmp_path: Path, keys: tuple[Key, Key]) -> Upstream:
    here = Upstream(tmp_path / "upstream", keys[0])
    here.add("libc", Essential="yes")
    here.add("ssh", Depends="libc, libssl (>= 1)")
    here.add("libssl", "1:3.0", Depends="libc")
    here.add("chrony", Conflicts="time-daemon", Provides="time-daemon", Recommends="docs", Depends="libc")
    here.add("ntpsec", Conflicts="time-daemon", Provides="time-daemon")
    here.add("docs")
    here.publish()
    return here


class Steps(Reporter):
    """Notes which steps were done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    @contextmanager
    def step(self, text: str, usual: float) -> Iterator[None]:
        self.done.append(text)
        yield


def package_set(*names: str, local: tuple[Path, ...] = (), why: str = "rt1") -> PackageSet:
    return PackageSet(("?essential", *names), tuple(map(deb.read, local)), (why,))


def resolve(
    tmp_path: Path, archive: Archive, *sets: PackageSet, report: Reporter | None = None, architecture: str = "amd64"
) -> Solution:
    root = AptRoot(tmp_path / "apt", archive, settings(architecture=architecture), report or Reporter())
    return root.resolve(sets)


def reasons(solution: Solution) -> dict[str, tuple[str, ...]]:
    return {package.name: package.why for package in solution.packages}


def refused(tmp_path: Path, archive: Archive, *sets: PackageSet, architecture: str = "amd64") -> str:
    with pytest.raises(MirrorError) as caught:
        resolve(tmp_path, archive, *sets, architecture=architecture)
    assert caught.value.next_step
    return str(caught.value)


# ---- what is found ----------------------------------------------------------------------------------------


def test_a_want_comes_to_all_its_dependencies_and_everything_says_why_it_is_there(
    tmp_path: Path, upstream: Upstream
) -> None:
    found = resolve(tmp_path, upstream.archive(), package_set("ssh", why=BASE_SET), package_set("chrony", "libssl"))
    # Recommended packages are left out; what every host has needs no other reason.
    assert reasons(found) == {
        "libc": ("base set",), "ssh": ("base set",), "libssl": ("base set",), "chrony": ("rt1",)
    }  # fmt: skip
    package = next(package for package in found.packages if package.name == "libssl")
    file = upstream.root / package.path
    assert (package.version, package.architecture, package.origin) == ("1:3.0", "amd64", "trixie")
    assert (package.size, package.sha256) == (
        file.stat().st_size,
        hashlib.sha256(file.read_bytes()).hexdigest(),
    )


def test_stanzas_are_those_of_the_signed_index_in_the_order_of_the_packages(tmp_path: Path, upstream: Upstream) -> None:
    found = resolve(tmp_path, upstream.archive(), package_set("ssh"))
    index = (upstream.root / "dists/trixie/main/binary-amd64/Packages").read_text()
    stanzas = found.stanzas.decode().removesuffix("\n\n").split("\n\n")
    assert [stanza.split("\n")[0] for stanza in stanzas] == ["Package: libc", "Package: libssl", "Package: ssh"]
    assert all(stanza in index for stanza in stanzas)


@pytest.mark.slow
def test_wants_that_exclude_each_other_are_both_there(tmp_path: Path, upstream: Upstream) -> None:
    found = resolve(tmp_path, upstream.archive(), package_set("chrony", why="a"), package_set("ntpsec", why="b"))
    assert reasons(found) == {"libc": ("a", "b"), "chrony": ("a",), "ntpsec": ("b",)}


def test_a_security_update_wins_and_its_origin_is_told(tmp_path: Path, upstream: Upstream) -> None:
    upstream.add("libssl", "1:3.1", "trixie-security")
    upstream.publish(valid_until=soon(7))
    found = resolve(tmp_path, upstream.archive(), package_set("ssh"))
    assert {package.name: package.origin for package in found.packages}["libssl"] == "trixie-security"
    origin = found.origins["trixie-security"]
    release = upstream.root / "dists/trixie-security/InRelease"
    assert origin.release_sha256 == hashlib.sha256(release.read_bytes()).hexdigest()
    assert origin.signed_by == (upstream.key.fingerprint,)
    assert origin.valid_until is not None and origin.valid_until > origin.date


def test_the_key_may_be_an_armoured_file(tmp_path: Path, upstream: Upstream) -> None:
    found = resolve(tmp_path, upstream.archive(keyring=upstream.key.armoured), package_set("ssh"))
    assert found.origins["trixie"].signed_by == (upstream.key.fingerprint,)


def test_a_suite_named_behind_a_slash_is_looked_into(tmp_path: Path, upstream: Upstream) -> None:
    upstream.add("libssl", "1:4.0", "trixie-backports")
    upstream.publish()
    upstream._publish("trixie-backports", soon(0), None, upstream.key.sign)
    found = resolve(tmp_path, upstream.archive(), package_set("libssl/trixie-backports"))
    assert [package.version for package in found.packages if package.name == "libssl"] == ["1:4.0"]


def test_a_local_package_brings_its_dependencies_and_wins_over_the_archives(tmp_path: Path, upstream: Upstream) -> None:
    local = build(tmp_path, "chrony", "0.9", Depends="libssl")
    found = resolve(tmp_path, upstream.archive(), package_set(local=(local,)))
    assert {package.name: package.origin for package in found.packages} == {
        "libc": "trixie", "libssl": "trixie", "chrony": LOCAL
    }  # fmt: skip
    package = found.packages[0]
    assert (package.name, package.version, package.path) == ("chrony", "0.9", local.name)
    assert f"Filename: {local.name}\nSize: {package.size}\nSHA256: {package.sha256}\n" in found.stanzas.decode()


def test_a_replacement_takes_the_archives_place_and_is_refused_where_it_takes_none(
    tmp_path: Path, upstream: Upstream
) -> None:
    fix = deb.read(build(tmp_path, "libssl", "1:3.0+fix1", Depends="libc"))
    other = deb.read(build(tmp_path, "nowhere", "1"))
    solution = resolve(tmp_path, upstream.archive(), replace(package_set("ssh"), replacements=(fix,)))
    found = {package.name: (package.version, package.origin) for package in solution.packages}
    assert found["libssl"] == ("1:3.0+fix1", LOCAL)
    assert "nothing installs nowhere" in refused(
        tmp_path, upstream.archive(), replace(package_set("ssh"), replacements=(fix, other))
    )


def test_this_computers_apt_is_neither_used_nor_changed(tmp_path: Path, upstream: Upstream) -> None:
    # Whatever is installed here, nothing counts as installed.
    upstream.add("dpkg")
    upstream.publish()
    assert "dpkg" in reasons(resolve(tmp_path, upstream.archive(), package_set("dpkg")))


@pytest.mark.slow
def test_nothing_is_resolved_again_until_something_changed(tmp_path: Path, upstream: Upstream) -> None:
    def done(*sets: PackageSet) -> tuple[Solution, bool]:
        steps = Steps()
        found = resolve(tmp_path, upstream.archive(), *sets, report=steps)
        return found, any("Resolving" in step for step in steps.done)

    first, resolved = done(package_set("ssh"))
    assert resolved
    assert done(package_set("ssh")) == (first, False)
    assert done(package_set("ssh", "docs"))[1]
    upstream.add("libssl", "1:3.2")
    upstream.publish()
    again, resolved = done(package_set("ssh", "docs"))
    assert resolved and "1:3.2" in {package.version for package in again.packages}


# ---- what is refused --------------------------------------------------------------------------------------


def test_an_unknown_package_is_told_with_who_asks_for_it(tmp_path: Path, upstream: Upstream) -> None:
    said = refused(tmp_path, upstream.archive(), package_set("ssh", why="rt1"), package_set("crony", why="backends1"))
    assert "no package crony for amd64 in trixie; backends1 asks for it" in said


def test_a_suite_that_is_not_there_is_told(tmp_path: Path, upstream: Upstream) -> None:
    said = refused(tmp_path, upstream.archive(), package_set("ssh/trixie-nowhere"))
    assert "could not be read" in said and "trixie-nowhere" in said


def test_packages_that_exclude_each_other_are_told_with_what_apt_says(tmp_path: Path, upstream: Upstream) -> None:
    upstream.add("needy", Depends="ghost (>= 2)")
    upstream.publish()
    said = refused(tmp_path, upstream.archive(), package_set("needy"))
    assert "what rt1 asks for cannot be installed together" in said
    assert "needy : Depends: ghost (>= 2) but it is not installable" in said


def test_an_architecture_that_the_archive_lacks_is_told_at_once(tmp_path: Path, upstream: Upstream) -> None:
    said = refused(tmp_path, upstream.archive(), package_set("ssh"), architecture="riscv64")
    assert "has no packages of trixie/main for the architecture riscv64" in said
    assert "mirror.architecture" in said


def test_a_local_package_for_another_architecture_is_named(tmp_path: Path, upstream: Upstream) -> None:
    local = build(tmp_path, "agent", architecture="arm64")
    said = refused(tmp_path, upstream.archive(), package_set(local=(local,)))
    assert f"{local} is for arm64, the hosts are amd64 (rt1 needs it)" in said


def test_an_archive_signed_with_another_key_is_refused_with_both_keys(
    tmp_path: Path, upstream: Upstream, keys: tuple[Key, Key]
) -> None:
    upstream.publish(sign=keys[1].sign)
    said = refused(tmp_path, upstream.archive(), package_set("ssh"))
    assert keys[0].fingerprint in said and keys[1].fingerprint[-16:] in said


def test_an_unsigned_archive_is_refused(tmp_path: Path, upstream: Upstream) -> None:
    upstream.publish(sign=str.encode)
    assert "signed by nobody" in refused(tmp_path, upstream.archive(), package_set("ssh"))
    assert "Trusted: yes" in refused(tmp_path, upstream.archive(trusted=True), package_set("ssh"))


def test_a_changed_index_is_refused_even_when_older_lists_are_there(tmp_path: Path, upstream: Upstream) -> None:
    resolve(tmp_path, upstream.archive(), package_set("ssh"))
    release = upstream.root / "dists/trixie/InRelease"
    release.write_bytes(release.read_bytes().replace(b"Label: Test", b"Label: Evil"))
    assert "is signed badly: its index was changed" in refused(tmp_path, upstream.archive(), package_set("ssh"))


def test_a_dead_archive_is_told_even_when_older_lists_are_there(tmp_path: Path, upstream: Upstream) -> None:
    resolve(tmp_path, upstream.archive(), package_set("ssh"))
    shutil.rmtree(upstream.root / "dists")
    said = refused(tmp_path, upstream.archive(), package_set("ssh"))
    assert "could not be read" in said and "check the network" in said


@pytest.mark.slow
def test_an_expired_archive_is_refused(tmp_path: Path, upstream: Upstream) -> None:
    upstream.publish(date=soon(-20), valid_until=soon(-10))
    assert "has expired" in refused(tmp_path, upstream.archive(), package_set("ssh"))
    # A computer configured for snapshots takes it, as its own apt does.
    archive = upstream.archive(options=(("Acquire::Check-Valid-Until", "false"),))
    assert resolve(tmp_path, archive, package_set("ssh")).packages


def test_an_index_of_the_future_means_that_the_clock_is_wrong(tmp_path: Path, upstream: Upstream) -> None:
    upstream.publish(date=soon(2))
    said = refused(tmp_path, upstream.archive(), package_set("ssh"))
    assert "dated in the future: the clock of this computer is wrong" in said and "timedatectl" in said


def test_passwords_of_an_archive_are_not_shown(tmp_path: Path, upstream: Upstream) -> None:
    archive = upstream.archive("http://me:hunter2@127.0.0.1:9/debian", options=(("Acquire::Retries", "0"),))
    said = refused(tmp_path, archive, package_set("ssh"))
    assert "127.0.0.1:9" in said and "hunter2" not in said


def test_a_package_is_read_once_and_again_when_its_file_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build(tmp_path, "agent", "1")
    assert deb.read(path).version == "1"
    path.write_bytes(build(tmp_path / "later", "agent", "2").read_bytes())
    assert deb.read(path).version == "2"
    monkeypatch.setenv("PATH", "")
    assert deb.read(path).version == "2"
    path.unlink()
    with pytest.raises(ValueError, match="No such file"):
        deb.read(path)


def test_a_folder_with_a_blank_does(tmp_path: Path, upstream: Upstream) -> None:
    place = tmp_path / "my project"
    place.mkdir()
    own = build(place, "agent", Depends="libc")
    solution = resolve(place, upstream.archive(), package_set("agent", local=(own,)))
    assert {package.name: package.origin for package in solution.packages}["agent"] == LOCAL


def test_web_servers_are_asked_as_by_apt_itself_while_solving(tmp_path: Path, upstream: Upstream) -> None:
    options = {"Acquire::https::CaInfo": "/etc/ours.pem", "Acquire::http::Proxy::a.example": "http://p.example:3128"}
    archive = replace(upstream.archive(), transport=tuple(options.items()))
    AptRoot(tmp_path / "apt", archive, settings(), Reporter()).resolve((package_set("ssh"),))
    command = ["apt-config", "dump"]
    environment = {"PATH": "/usr/bin:/bin", "APT_CONFIG": str(tmp_path / "apt" / "apt.conf")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert dict(parse_transport(done.stdout)).items() >= options.items()
