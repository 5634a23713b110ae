"""The lock: what an inventory comes to, as a file that people read, comment and compare."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import settings as relaxed
from hypothesis import strategies as st
from ruamel.yaml import YAML

from roles.fleet import load_hosts
from rtinfra import deb
from rtinfra.config import ConfigError
from rtinfra.images import LocalStore, oci
from rtinfra.images.image_catalogue import Catalogue, CatalogueImage
from rtinfra.images.image_store import Record
from rtinfra.local.progress import Reporter
from rtinfra.mirror import lock as locking
from rtinfra.mirror import tool
from rtinfra.mirror.errors import MirrorError
from rtinfra.mirror.fetch import fetch
from rtinfra.mirror.images import lock_image
from rtinfra.mirror.model import Blob, Lock, LockedPackage, ordered
from rtinfra.mirror.required import PackageSet, Required, WheelSet, host_wheels, load_required, required_by, tool_wheels
from rtinfra.mirror.store import Mirror
from rtinfra.paths import PROJECT
from rtinfra.wheelhouse import REQUIREMENTS
from tests.unit.mirror_archive import Key, Upstream, WebServer, build, settings, soon, wheel
from tests.unit.telemetry_site import FakeStore


@pytest.fixture(scope="module")
def key() -> Iterator[Key]:
    with tempfile.TemporaryDirectory(prefix="k-", dir="/tmp") as home:
        key = Key(Path(home) / "a")
        yield key
        key.stop()


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True)


def store_with(folder: Path, text: str = "hello") -> LocalStore:
    """A store with one image, `greeter`, that says `text`."""
    folder.mkdir(parents=True, exist_ok=True)
    registry = {"repository": "example.invalid/greeter", "tag": "1.0", "digest": f"sha256:{'0' * 64}"}
    image = CatalogueImage.model_validate(
        {"title": "greets", "version": "1.0", "licence": "Apache-2.0", "registry": registry}
    )
    store = LocalStore(folder, Catalogue(images={"greeter": image}))
    content = oci.Image(image.reference("greeter"), (oci.Entry("hello", 0o755, text.encode()),), "/hello")
    digest = oci.write(content, store.archive_path("greeter"))
    store.write_record("greeter", Record(image.recipe(), digest))
    return store


@dataclass
class Place:
    """A connected computer: an archive, a store, a project, an index for pip, and the mirror's folder."""

    root: Path
    upstream: Upstream
    required: Required
    advisories: tuple[Path, ...] = ()

    @property
    def path(self) -> Path:
        return self.root / "mirror.lock.yaml"

    @property
    def mirror(self) -> Mirror:
        return Mirror(self.root / "mirror")

    @property
    def sources(self) -> locking.Sources:
        store, project = store_with(self.root / "store"), self.root / "project"
        return locking.Sources(self.upstream.archive(), store, project, self.advisories)

    def lock(self, renew: bool = False) -> locking.Locked:
        return locking.lock(self.required, self.path, self.mirror, self.sources, Reporter(), renew=renew)


@pytest.fixture
def place(tmp_path: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> Place:
    upstream = Upstream(tmp_path / "upstream", key)
    upstream.add("libc", Essential="yes")
    upstream.add("ssh", Depends="libc")
    upstream.add("chrony", Depends="libc")
    upstream.publish()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    project = tmp_path / "project"
    (project / "requirements").mkdir(parents=True)
    (project / tool.REQUIREMENTS).write_text(wheel(tmp_path / "index", "some"))
    (project / REQUIREMENTS.relative_to(PROJECT)).write_text("")
    (project / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    local = deb.read(build(tmp_path, "agent", Depends="chrony"))
    base = PackageSet(("?essential", "ssh"), (), ("base set",))
    packages = (base, PackageSet(("?essential",), (local,), ("rt1",)))
    required = Required(settings(), packages, {"greeter": ("rt1",)}, (tool_wheels(settings()),))
    return Place(tmp_path, upstream, required)


# ---- making it --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_with_advisories_are_carried(place: Place, tmp_path: Path) -> None:
    (tmp_path / "PyPI.zip").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    place.advisories = (tmp_path / "PyPI.zip",)
    lock = place.lock().lock
    (carried,) = (file for file in lock.files if file.name == "advisories-PyPI.zip")
    assert place.mirror.pool.read(carried.sha256) == (tmp_path / "PyPI.zip").read_bytes()
    assert not place.lock().changed


@pytest.mark.parametrize("names, reason", [(["none.zip"], "is no .zip file"), (["a b.zip"], "is no plain file name")])
def test_a_file_with_advisories_that_cannot_be_carried_is_refused_first(
    place: Place, tmp_path: Path, names: list[str], reason: str
) -> None:
    (tmp_path / "a b.zip").touch()
    place.advisories = tuple(tmp_path / name for name in names)
    with pytest.raises(MirrorError, match=reason):
        place.lock()
    assert not place.mirror.root.exists()


def test_two_files_with_advisories_of_one_name_are_refused(place: Place, tmp_path: Path) -> None:
    for ecosystem in ("PyPI", "Go"):
        (tmp_path / ecosystem).mkdir()
        (tmp_path / ecosystem / "all.zip").touch()
    place.advisories = (tmp_path / "PyPI" / "all.zip", tmp_path / "Go" / "all.zip")
    with pytest.raises(MirrorError, match="have one name"):
        place.lock()


@pytest.mark.slow
def test_a_lock_holds_everything_and_fetch_brings_the_rest(place: Place) -> None:
    made = place.lock()
    assert made.changed and made.before is None
    lock = made.lock
    assert {package.name: package.origin for package in lock.packages} == {
        "agent": "local", "chrony": "trixie", "libc": "trixie", "ssh": "trixie"
    }  # fmt: skip
    assert [image.name for image in lock.images] == ["greeter"]
    assert [each.file for each in lock.wheels] == ["some-1.0-py3-none-any.whl"]
    assert [file.name for file in lock.files] == ["requirements.txt", "rtinfra-1.2.3.tar"]
    # Of the archive's packages nothing was fetched yet; all else is in the pool.
    missing = place.mirror.pool.missing(lock.contents())
    assert {content.name for content in missing} == {f"{name}_1.0_amd64.deb" for name in ("chrony", "libc", "ssh")}
    with WebServer(place.upstream.root).running() as base:
        fetch(lock, place.mirror, place.upstream.archive(base), Reporter())
    for content in lock.contents():
        place.mirror.pool.verify(content)


@pytest.mark.slow
def test_hosts_with_an_environment_of_ours_have_wheels_for_their_python(place: Place) -> None:
    """Their Python is another than that of the closed network's control machine; what both need is locked once."""
    index = place.root / "index"
    tags = [f"{python}-{python}-manylinux_2_17_x86_64" for python in ("cp312", "cp313")]
    hashes = " ".join(wheel(index, "fast", tag=tag).split()[1] for tag in tags)
    shared = wheel(index, "some")
    (place.root / "project" / tool.REQUIREMENTS).write_text(f"{shared}fast==1.0 {hashes}\n")
    (place.root / "project" / REQUIREMENTS.relative_to(PROJECT)).write_text(f"{shared}fast==1.0 {hashes}\n")
    chosen = settings(python=("3.12",))
    place.required = replace(
        place.required, settings=chosen, wheels=(tool_wheels(chosen), host_wheels(chosen, ("rt1", "rt2")))
    )
    lock = place.lock().lock
    assert {each.file: each.why for each in lock.wheels} == {
        f"fast-1.0-{tags[0]}.whl": ("this tool",),
        f"fast-1.0-{tags[1]}.whl": ("rt1", "rt2"),
        "some-1.0-py3-none-any.whl": ("this tool", "rt1", "rt2"),
    }
    assert {file.name: file.why for file in lock.files}["preflight.txt"] == ("rt1", "rt2")
    assert not place.lock().changed


@pytest.mark.slow
def test_nothing_changed_leaves_the_file_alone(place: Place) -> None:
    first = place.lock()
    data, changed = place.path.read_bytes(), place.path.stat().st_mtime_ns
    # Archives renew their indexes although nothing that is locked has changed.
    place.upstream.publish(date=soon(0.0001))
    again = place.lock()
    assert not again.changed and again.lock == first.lock
    assert (place.path.read_bytes(), place.path.stat().st_mtime_ns) == (data, changed)


@pytest.mark.slow
def test_a_lock_may_be_renewed_although_nothing_changed(place: Place) -> None:
    first = place.lock().lock
    second = place.lock(renew=True).lock
    assert second.created > first.created and second.packages == first.packages


@pytest.mark.slow
def test_an_update_is_a_new_lock_with_a_later_date_and_the_operators_comments(place: Place) -> None:
    first = place.lock().lock
    text = place.path.read_text()
    text = text.replace("- name: chrony\n", "# Keeps the time.\n- name: chrony # ours\n")
    text = text.replace("valid_days: 180\n", "# Half a year.\nvalid_days: 180\n") + "# The end.\n"
    place.path.write_text(text)
    assert not place.lock().changed
    assert place.path.read_text() == text
    place.upstream.add("chrony", "2.0", "trixie-security", Depends="libc, added")
    place.upstream.add("added")
    place.upstream.publish()
    second = place.lock().lock
    assert second.created > first.created
    assert {package.version for package in second.packages if package.name == "chrony"} == {"2.0"}
    written = place.path.read_text()
    assert "# Keeps the time.\n- name: chrony # ours\n  version: '2.0'\n" in written
    assert "# Half a year.\nvalid_days: 180\n" in written and written.endswith("# The end.\n")
    assert written.startswith(text.partition("format:")[0]) and written.count("Written by `rtinfra mirror lock`") == 1
    assert locking.read(place.path) == second


@pytest.mark.slow
def test_an_archive_that_went_back_in_time_is_refused(place: Place) -> None:
    place.lock()
    place.upstream.publish(date=soon(-2))
    # apt itself ignores it without a word while it has the newer lists.
    subprocess.run(["rm", "-r", place.mirror.root / "apt"], check=True)
    with pytest.raises(MirrorError, match=r"is older than when mirror\.lock\.yaml was made: its index of trixie"):
        place.lock()


@pytest.mark.slow
def test_a_clock_that_went_back_is_told(place: Place) -> None:
    first = place.lock().lock
    locking.write(first.model_copy(update={"created": first.created + timedelta(days=9)}), place.path)
    with pytest.raises(MirrorError) as caught:
        place.lock(renew=True)
    assert "this computer's clock says" in caught.value.message and "timedatectl" in caught.value.next_step


# ---- the file ---------------------------------------------------------------------------------------------

WORDS = st.text("abcdefz0123456789", min_size=1, max_size=8)
VERSIONS = st.from_regex(r"[0-9]{1,3}(:[0-9]{1,2})?[.:~+-]?[0-9a-fx]{0,6}", fullmatch=True)
HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    names = draw(st.lists(st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,10}", fullmatch=True), max_size=6, unique=True))
    return Lock(
        format=1,
        created=draw(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1))).replace(tzinfo=UTC),
        suite="trixie",
        architecture="amd64",
        valid_days=draw(st.integers(1, 999)),
        stanzas=Blob(sha256=draw(HASHES), size=draw(st.integers(0, 10**12))),
        origins={},
        packages=ordered(
            LockedPackage(
                name=name, version=draw(VERSIONS), architecture="amd64", origin="local", path=f"{name}.deb",
                size=draw(st.integers(1, 10**12)), sha256=draw(HASHES), why=tuple(draw(st.lists(WORDS, min_size=1))),
            )
            for name in names
        ),
        images=(), wheels=(), files=(),
    )  # fmt: skip


@pytest.mark.slow
@relaxed(max_examples=25, deadline=None)
@given(locks())
def test_what_is_written_is_what_is_read(lock: Lock) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lock.yaml"
        locking.write(lock, path)
        assert locking.read(path) == lock
        data = path.read_bytes()
        locking.write(lock, path)
        assert path.read_bytes() == data


@pytest.mark.slow
def test_what_is_wrong_in_a_lock_is_told_with_its_line(place: Place) -> None:
    place.lock()
    good = place.path.read_text()
    number = good.splitlines().index("- name: chrony") + 1

    def refused(text: str) -> str:
        place.path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            locking.read(place.path)
        return str(caught.value)

    assert f"mirror.lock.yaml:{number}: packages.1.name" in refused(good.replace("- name: chrony", "- name: Chrony!"))
    changed = re.sub(r"(- name: chrony\n(?:.*\n){4}  size: )\d+", r"\1many", good)
    assert f"mirror.lock.yaml:{number + 5}: packages.1.size" in refused(changed)
    assert "is not a known key" in refused(good + "extra: 1\n")
    assert "lock.yaml:" in refused(good.replace("packages:", "packages"))


def test_a_missing_lock_and_one_of_another_format_are_told(tmp_path: Path) -> None:
    path = tmp_path / "mirror.lock.yaml"
    with pytest.raises(MirrorError) as caught:
        locking.read(path)
    assert "rtinfra mirror lock" in caught.value.next_step
    path.write_text("format: 2\n")
    with pytest.raises(MirrorError, match="has format 2, this rtinfra reads format 1"):
        locking.read(path)


# ---- the tool itself --------------------------------------------------------------------------------------


def test_the_tool_is_the_same_bytes_from_the_same_commit(tmp_path: Path) -> None:
    def archived(folder: Path, time: int, mask: int) -> bytes:
        before = os.umask(mask)
        try:
            folder.mkdir()
            for name, text in (("pyproject.toml", '[project]\nversion = "1.0"\n'), ("run", "#!/bin/sh\n")):
                (folder / name).write_text(text)
                os.utime(folder / name, (time, time))
            (folder / "run").chmod(0o775)
            (folder / "link").symlink_to("run")
            git(folder, "init", "--quiet")
            (folder / ".gitignore").write_text("secrets/\n")
            git(folder, "add", "--all")
            (folder / "secrets").mkdir()
            (folder / "secrets" / "password").write_text("hunter2")
            return tool.archive(folder)
        finally:
            os.umask(before)

    one, other = archived(tmp_path / "a", 1_000_000, 0o022), archived(tmp_path / "b", 2_000_000, 0o077)
    assert one == other
    with tarfile.open(fileobj=io.BytesIO(one)) as tar:
        assert {member.name: member.mode for member in tar} == {
            "rtinfra-1.0/.gitignore": 0o644, "rtinfra-1.0/link": 0o777,
            "rtinfra-1.0/pyproject.toml": 0o644, "rtinfra-1.0/run": 0o755,
        }  # fmt: skip


def test_the_tool_leaves_out_the_lock_that_names_its_hash(place: Place) -> None:
    project = place.root / "project"
    before = tool.archive(project)
    (project / "mirror.lock.yaml").write_text("format: 1\n")
    git(project, "add", "--all")
    assert tool.archive(project) == before


def test_a_folder_without_version_control_is_told(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.0"\n')
    with pytest.raises(MirrorError, match="is not under version control"):
        tool.archive(tmp_path)


# ---- images -----------------------------------------------------------------------------------------------


def test_an_image_is_its_manifest_and_blobs(tmp_path: Path) -> None:
    store, pool = store_with(tmp_path / "store"), Mirror(tmp_path).pool
    image = lock_image("greeter", store, ("rt1",), pool, Reporter())
    assert image.reference == store.image("greeter")
    assert len(image.blobs) == 2 and image.licence == "Apache-2.0"
    assert len(list(pool.everything())) == 3


def test_a_tampered_image_is_refused_and_named(tmp_path: Path) -> None:
    store, pool = store_with(tmp_path / "store"), Mirror(tmp_path).pool
    archive = store.archive_path("greeter")
    data = bytearray(archive.read_bytes())
    with tarfile.open(archive) as tar:
        layer = max((member for member in tar if member.name.startswith("blobs/sha256/")), key=lambda each: each.offset)
    data[layer.offset_data + 12] ^= 1
    archive.write_bytes(data)
    with pytest.raises(MirrorError) as caught:
        lock_image("greeter", store, ("rt1",), pool, Reporter())
    assert "image greeter: greeter-1.0.tar in images/store is damaged" in caught.value.message
    assert "rtinfra images" in caught.value.next_step
    assert len(list(pool.everything())) <= 2


# ---- what an inventory asks for ---------------------------------------------------------------------------


PREFLIGHT = ["agents", "gateways", "jaeger", "prometheus", "preflight"]


@pytest.mark.parametrize(("distribution", "python"), [("debian-13", "3.13"), ("debian-12", "3.11")])
def test_hosts_in_the_group_preflight_ask_for_wheels(tmp_path: Path, distribution: str, python: str) -> None:
    settings = {"settings": {"mirror": {"distribution": distribution}}}
    path = inventory(tmp_path, one={"groups": PREFLIGHT, **settings}, two=settings)
    tools, hosts = required_wheels(path)
    assert (tools.requirements, tools.pythons) == (Path("requirements/runtime.txt"), ("3.13",))
    assert (hosts.requirements, hosts.pythons, hosts.why) == (Path("requirements/preflight.txt"), (python,), ("one",))
    assert [one.name for one in required_wheels(inventory(tmp_path, one={}, two={}))] == ["requirements.txt"]


def test_a_distribution_whose_python_is_not_known_is_told(tmp_path: Path) -> None:
    path = inventory(tmp_path, one={"groups": PREFLIGHT, "settings": {"mirror": {"distribution": "debian-14"}}})
    with pytest.raises(MirrorError) as caught:
        required_wheels(path)
    assert "which Python debian-14 has" in caught.value.message and "debian-13" in caught.value.next_step


def required_wheels(path: Path) -> tuple[WheelSet, ...]:
    """What an inventory asks for, with an image and package store that has everything."""
    return required_by(load_hosts(PROJECT, path), cast(LocalStore, FakeStore())).wheels


def inventory(tmp_path: Path, **hosts: dict[str, object]) -> Path:
    path = tmp_path / "hosts.yaml"
    entries = {
        name: {"ssh": {"address": f"192.0.2.{number}"}, **entry}
        for number, (name, entry) in enumerate(hosts.items(), start=1)
    }
    with path.open("w") as stream:
        YAML().dump({"hosts": entries}, stream)
    return path


def test_every_host_is_one_want_and_equal_hosts_are_one_together(tmp_path: Path) -> None:
    path = inventory(tmp_path, rt1={"groups": ["rt_hosts"]}, rt2={"groups": ["rt_hosts"]}, other={})
    required = load_required(PROJECT, path, LocalStore())
    by_who = {package_set.why: package_set.names for package_set in required.packages}
    assert list(by_who) == [
        ("base set",),
        ("boot loader grub-pc",),
        ("boot loader grub-efi-amd64",),
        ("boot loader grub-efi-amd64-signed",),
        ("boot loader shim-signed",),
        ("this tool",),
        ("rt1", "rt2"),
        ("other",),
    ]
    assert "linux-image-rt-amd64" in by_who["rt1", "rt2"] and "chrony" in by_who["other",]
    assert all(names[:3] == required.settings.base_patterns for names in by_who.values())


def test_neither_keys_nor_secrets_of_the_hosts_are_needed(tmp_path: Path) -> None:
    ssh = {"address": "192.0.2.1", "key": "/nowhere/key", "known_hosts": "/nowhere/known_hosts"}
    assert load_required(PROJECT, inventory(tmp_path, rt1={"ssh": ssh}), LocalStore()).packages


def test_an_inventory_that_a_deploy_would_refuse_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no host of the inventory runs it"):
        load_required(PROJECT, inventory(tmp_path, gate={"groups": ["gateways"]}), LocalStore())


def test_an_image_that_is_not_here_is_told_with_the_host_that_runs_it(tmp_path: Path) -> None:
    path = inventory(tmp_path, backends1={"groups": ["grafana"]})
    with pytest.raises(MirrorError) as caught:
        load_required(PROJECT, path, LocalStore(tmp_path))
    assert "backends1 needs what is not here: image grafana" in caught.value.message
    assert "rtinfra images pull grafana" in caught.value.next_step


def test_hosts_that_do_not_fit_into_one_mirror_are_told(tmp_path: Path) -> None:
    path = inventory(tmp_path, one={}, two={"settings": {"mirror": {"architecture": "arm64"}}})
    with pytest.raises(MirrorError, match="one and two have different settings of the mirror"):
        load_required(PROJECT, path, LocalStore())


def test_a_distribution_without_a_kernel_is_told(tmp_path: Path) -> None:
    path = inventory(tmp_path, rt1={"groups": ["rt_hosts"], "settings": {"mirror": {"distribution": "debian-14"}}})
    with pytest.raises(MirrorError, match=r"rt1: rt_kernel.sources has no kernel for debian-14"):
        load_required(PROJECT, path, LocalStore())


def test_a_host_alone_is_named_and_all_hosts_have_one_name(tmp_path: Path) -> None:
    path = inventory(tmp_path, one={}, two={})
    assert load_required(PROJECT, path, LocalStore()).packages[-1].why == ("every host",)
    assert required_by(load_hosts(PROJECT, inventory(tmp_path, one={})), LocalStore()).packages[-1].why == ("one",)
