"""A bundle is brought to a bare Debian 13 without a network: install.sh alone, with what such a system has.

The bare system is a folder (mmdebstrap, `minbase` and ssh-keygen, nothing else), entered without any network card.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rtinfra.local import programs
from rtinfra.local.archive import discover
from rtinfra.local.bootstrap import bootstrap, tools
from rtinfra.local.progress import ConsoleReporter
from rtinfra.mirror import installer, tool, wheels
from rtinfra.mirror.bundle import Bundle, make_bundle
from rtinfra.mirror.installer import checking_lines
from rtinfra.mirror.model import LOCAL, Lock, LockedFile, LockedPackage, ordered
from rtinfra.mirror.store import Mirror, State
from rtinfra.paths import PROJECT
from tests.unit.bundle_site import add, flip, make_lock

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to enter a bare system")

SUITE = "trixie"
_SCRIPT = "/media/usb/bundle/install.sh"
_ENTER = 'mount -t proc proc "$1/proc" && exec chroot "$@"'


@dataclass(frozen=True)
class Bare:
    """A bare system in a folder."""

    root: Path

    def start(self, *command: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start a command inside, where there is no network; everything it starts ends with it."""
        return subprocess.Popen(
            [
                *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"),
                *("sh", "-c", _ENTER, "sh", str(self.root), *command),
            ],
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str) -> tuple[int, str]:
        """Run a command inside; return its exit code and what it said."""
        with self.start(*command) as process:
            output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def install(self, *options: str) -> tuple[int, str]:
        """Run the installer of the bundle that is on the stick."""
        return self.run("sh", _SCRIPT, *options)

    @property
    def stick(self) -> Path:
        """Where the bundle is."""
        return self.root / "media/usb/bundle"

    @property
    def target(self) -> Path:
        """Where the tool gets installed."""
        return self.root / "opt/rtinfra"

    def put(self, made: Bundle) -> None:
        """Put a bundle on the stick in place of what is there."""
        shutil.rmtree(self.stick, ignore_errors=True)
        shutil.copytree(made.folder, self.stick)

    def settings_of_apt(self) -> dict[str, bytes]:
        """Every file of apt's configuration, and its lists."""
        folders = (self.root / "etc/apt", self.root / "var/lib/apt/lists")
        return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def connected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bare, Mirror, Lock]:
    """A bare system, and where there is a network a lock with all that the tool needs there."""
    work = tmp_path_factory.mktemp("install")
    debs = work / "debs"
    debs.mkdir()
    programs.ensure(tools(), ConsoleReporter())
    get = 'chroot "$1" apt-get install --quiet --yes --no-install-recommends --download-only'
    bootstrap(
        discover(),
        SUITE,
        variant="minbase",
        packages=["openssh-client"],
        hooks=[
            f"--customize-hook={get} {' '.join(installer.PACKAGES)}",
            f"--customize-hook={get} --reinstall openssh-client",
            f"--customize-hook=sync-out /var/cache/apt/archives {debs}",
        ],
        target=work / "root.tar",
        work=work,
    )
    bare = Bare(work / "root")
    bare.root.mkdir()
    programs.execute(["tar", "-x", "-f", work / "root.tar", "-C", bare.root, "--numeric-owner"], timeout=120)
    mirror = Mirror(work / "mirror")
    return bare, mirror, _lock(mirror, sorted(debs.glob("*.deb")))


def _lock(mirror: Mirror, debs: list[Path]) -> Lock:
    packages, stanzas = [], []
    for path in debs:
        control = programs.execute(["dpkg-deb", "--field", path], timeout=30).stdout
        fields = dict(line.split(": ", 1) for line in control.splitlines() if ": " in line and line[0] != " ")
        blob = add(mirror.pool, "package", path.name, path.read_bytes())
        stanzas.append(f"{control}Filename: pool/{path.name}\nSize: {blob.size}\nSHA256: {blob.sha256}\n")
        packages.append(
            LockedPackage(
                name=fields["Package"],
                version=fields["Version"],
                architecture=fields["Architecture"],
                origin=LOCAL,
                path=path.name,
                size=blob.size,
                sha256=blob.sha256,
                why=("rtinfra",),
            )
        )
    architecture = next(package.architecture for package in packages if package.architecture != "all")
    target = wheels.Target(pythons=("3.13",), architecture=architecture, suite=SUITE)
    record = mirror.root / "wheels.json"
    archive = add(mirror.pool, "file", "tool", tool.archive(PROJECT))
    return Lock(
        format=1,
        created=datetime.now(UTC) - timedelta(hours=1),
        suite=SUITE,
        architecture=architecture,
        valid_days=90,
        stanzas=add(mirror.pool, "index", "Packages", "\n".join(stanzas).encode()),
        origins={},
        packages=ordered(packages),
        images=(),
        wheels=wheels.resolve(
            PROJECT / tool.REQUIREMENTS, target, ("rtinfra",), mirror.pool, record, ConsoleReporter()
        ),
        files=(
            LockedFile(name=tool.archive_name(PROJECT), size=archive.size, sha256=archive.sha256, why=("rtinfra",)),
        ),
    )


def test_from_nothing_to_an_imported_bundle(connected: tuple[Bare, Mirror, Lock]) -> None:
    bare, mirror, lock = connected
    made = make_bundle(mirror, lock, part_size=8_000_000)
    bare.put(made)
    before = bare.settings_of_apt()
    assert bare.run("sh", "-c", "command -v python3 gpg")[0] != 0

    # Refused: nothing is known of the key, another key, a part that was damaged on the way.
    code, said = bare.install()
    assert code == 1 and "ask whoever made the bundle for its number, on another way" in said, said
    code, said = bare.install("--key", "SHA256:" + "A" * 43)
    assert code == 1 and f"the bundle is of the key {made.fingerprint}, but the key trusted here is SHA256:AAA" in said
    for line in checking_lines(made.number):
        code, said = bare.run("sh", "-c", f"cd /media/usb/bundle && {line}")
        assert code == 0, said
    flip(bare.stick / "part-0002", 1000)
    assert bare.run("sh", "-c", f"cd /media/usb/bundle && {checking_lines(made.number)[1]}")[0] != 0
    code, said = bare.install("--key", made.number)
    assert code == 1 and "only these have to be carried again: part-0002" in said, said
    assert not bare.target.exists()

    # Pulled off in the middle: killed while it installs packages, and while it installs wheels.
    bare.put(made)
    for moment in ("installing Debian packages", "installing rtinfra"):
        with bare.start("sh", _SCRIPT, "--key", made.number) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if moment in line:
                    time.sleep(3)
                    break
            assert process.poll() is None, "it was done before it was killed"
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=30)
        assert not (bare.target / ".installed").exists()

    code, said = bare.install("--key", made.number)
    assert code == 0, said
    assert "rtinfra mirror publish" in said and "완료되었습니다" in said
    state = State.model_validate_json((bare.root / "srv/rtinfra-mirror/state.json").read_bytes())
    assert [entry.id for entry in state.imported] == [made.manifest.id]
    assert bare.run("rtinfra", "mirror", "--help")[0] == 0
    assert bare.run("dpkg", "--audit") == (0, "")
    assert bare.settings_of_apt() == before
    assert not (bare.target / ".install").exists()

    # Once more: quick, nothing is installed again, and the key is known.
    start = time.monotonic()
    code, said = bare.install()
    assert code == 0 and "this rtinfra is installed already" in said, said
    assert time.monotonic() - start < 15


def test_what_is_not_for_this_computer_is_refused_before_anything_is_installed(
    connected: tuple[Bare, Mirror, Lock], tmp_path: Path
) -> None:
    bare, _, real = connected
    small = Mirror(tmp_path / "small")
    lock = make_lock(small.pool, tmp_path / "debs", created=real.created)
    good = make_bundle(small, lock)
    there = ["--key", good.number, "--target", "/opt/other", "--mirror", "/srv/other"]

    def refused(*expected: str) -> None:
        code, said = bare.install(*there)
        assert code == 1, said
        for text in expected:
            assert text in said
        assert not any((bare.root / folder).exists() for folder in ("opt/other", "srv/other"))

    for changes, expected in (
        ({"created": real.created - timedelta(days=100)}, "the bundle expired at"),
        ({"created": real.created + timedelta(days=2)}, "but this clock says"),
        ({"architecture": "riscv64"}, "the bundle is for riscv64, this computer is"),
        ({"suite": "sid"}, "the bundle is for Debian sid, this computer has trixie"),
    ):
        bare.put(make_bundle(small, lock.model_copy(update=changes)))
        refused(expected)

    bare.put(good)
    (bare.stick / "part-0001").unlink()
    refused("part-0001 is truncated or missing: it has 0 bytes")
    bare.put(good)
    flip(bare.stick / "Packages", 10)
    refused("Packages: FAILED", "files of the bundle are damaged or missing")
    bare.put(good)
    flip(bare.stick / "SHA256SUMS", 10)
    refused("SHA256SUMS is not what the key")
    bare.put(good)
    (bare.stick / "manifest.json.sig").unlink()
    refused("manifest.json.sig is missing")

    # Too small a disk, really.
    bare.put(good)
    install = f"mount -t tmpfs -o size=600k none /mnt && sh {_SCRIPT} --key {good.number} --mirror /mnt/mirror"
    code, said = bare.run("sh", "-c", install)
    assert code == 1 and "not enough disk space: /mnt/mirror has 0 MB free, 1 MB are needed" in said, said


def test_a_person_at_a_terminal_is_asked_about_the_key(connected: tuple[Bare, Mirror, Lock]) -> None:
    bare, _, _ = connected
    ours, theirs = os.openpty()
    with bare.start("sh", _SCRIPT, "--mirror", "/srv/other", stdin=theirs) as process:
        os.write(ours, b"no\n")
        said, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert "is this the number they see?" in said and "같은 번호입니까" in said
    assert process.returncode == 1 and "the key was not confirmed" in said


def test_a_difference_brings_a_new_tool_and_keeps_what_was_changed_here(connected: tuple[Bare, Mirror, Lock]) -> None:
    bare, mirror, lock = connected
    bare_settings, ours = bare.target / "group_data/all.yaml", bare.target / "config.py"
    shipped = bare_settings.read_bytes()
    bare_settings.write_bytes(shipped + b"# changed here\n")
    ours.write_bytes(b"broken(")
    data = tool.archive(PROJECT) + bytes(10_240)
    archive = add(mirror.pool, "file", "tool", data)
    files = (lock.files[0].model_copy(update={"size": archive.size, "sha256": archive.sha256}),)
    newer = lock.model_copy(update={"created": lock.created + timedelta(minutes=1), "files": files})
    made = make_bundle(mirror, newer, base=mirror.state().bundles[-1].id)
    assert [content.kind for content in made.manifest.carried] == ["lock", "file"]
    bare.put(made)
    code, said = bare.install()
    assert code == 0, said
    assert "kept, because it was changed here: /opt/rtinfra/./group_data/all.yaml" in said
    assert bare_settings.read_bytes() == shipped + b"# changed here\n"
    assert bare_settings.with_name("all.yaml.new").read_bytes() == shipped
    assert ours.read_bytes() == (PROJECT / "config.py").read_bytes()
    assert bare.run("rtinfra", "mirror", "--help")[0] == 0
