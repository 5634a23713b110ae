"""Building images and packages: what goes in, what is refused, and that the same comes out the same."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from rtinfra import deb
from rtinfra.images import ImageMissing, LocalStore, build, cli, debian
from rtinfra.images.build import BuildUnavailable
from rtinfra.images.image_catalogue import CATALOGUE, Catalogue, CatalogueImage, GoSource, load_catalogue
from rtinfra.images.oci import Entry, Image, read_digest, write
from rtinfra.images.pull import _pin, pull
from rtinfra.local import programs
from rtinfra.local.errors import LocalError
from rtinfra.local.progress import Reporter

HAS_DPKG = shutil.which("dpkg-deb") is not None
SILENT = Reporter()

# ---- our Debian packages ----------------------------------------------------------------------------------


def make_package(tmp_path: Path, name: str, program: bytes) -> Path:
    work = tmp_path / name
    work.mkdir()
    binary = work / "demo"
    binary.write_bytes(program)
    target = tmp_path / f"{name}.deb"
    debian.write(debian.Package("rtinfra-demo", "1.2", "A demo", "MIT"), binary, "usr/bin/demo", target, work)
    return target


@pytest.mark.skipif(not HAS_DPKG, reason="dpkg-deb is not installed")
def test_a_package_is_the_same_for_the_same_program(tmp_path: Path) -> None:
    first = make_package(tmp_path, "first", b"program")
    before = os.umask(0o077)
    try:
        second = make_package(tmp_path, "second", b"program")
    finally:
        os.umask(before)
    assert first.read_bytes() == second.read_bytes()
    assert deb.read(first).name == "rtinfra-demo"


@pytest.mark.skipif(not HAS_DPKG, reason="dpkg-deb is not installed")
def test_another_program_is_another_version(tmp_path: Path) -> None:
    first, second = (deb.read(make_package(tmp_path, name, name.encode())) for name in ("first", "second"))
    assert first.version != second.version
    assert first.version.startswith("1.2-")


@pytest.mark.skipif(not HAS_DPKG, reason="dpkg-deb is not installed")
def test_a_package_belongs_to_root_and_can_be_verified(tmp_path: Path) -> None:
    listed = programs.execute(["dpkg-deb", "--contents", make_package(tmp_path, "x", b"program")], timeout=30).stdout
    (line,) = (line for line in listed.splitlines() if line.endswith("./usr/bin/demo"))
    assert line.startswith("-rwxr-xr-x root/root")


@pytest.mark.skipif(not HAS_DPKG, reason="dpkg-deb is not installed")
def test_a_vendors_package_is_found_by_its_name(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store", Catalogue(images={}))
    store.directory.mkdir()
    with pytest.raises(ImageMissing, match="no package rtinfra-demo is in images/store"):
        store.package("rtinfra-demo")
    shutil.copy(make_package(tmp_path, "first", b"1"), store.directory / "rtinfra-demo-1.2-amd64.deb")
    assert store.package("rtinfra-demo").path.name == "rtinfra-demo-1.2-amd64.deb"
    shutil.copy(make_package(tmp_path, "second", b"2"), store.directory / "rtinfra-demo_1.3_amd64.deb")
    with pytest.raises(ImageMissing, match="several packages"):
        store.package("rtinfra-demo")


# ---- what is taken out of Debian packages -----------------------------------------------------------------


def system(tmp_path: Path) -> Path:
    """The tar of a small system, as mmdebstrap writes one."""
    path = tmp_path / "tree.tar"
    files = {
        "./usr/bin/demo": b"program",
        "./usr/bin/other": b"not wanted",
        "./usr/share/demo/page.html": b"page",
        "./usr/share/javascript/lib/lib.js": b"script",
        "./usr/lib/x86_64-linux-gnu/libc.so.6": b"library",
        "./usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": b"loader",
    }
    links = {
        "./usr/share/demo/lib": "../javascript/lib",
        "./usr/lib64/ld-linux-x86-64.so.2": "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        "./usr/share/bad/out": "../../../../etc",
    }
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o6755
            tar.addfile(member, io.BytesIO(content))
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def test_only_what_is_kept_and_what_links_lead_to_is_taken(tmp_path: Path) -> None:
    entries = build._extract(
        system(tmp_path), tmp_path / "tree", ["usr/bin/demo", "usr/share/demo"], with_authorities=False
    )
    found = {entry.path: entry for entry in entries}
    assert sorted(path for path in found if path.startswith(("usr/bin", "usr/share"))) == [
        "usr/bin/demo",
        "usr/share/demo/lib",
        "usr/share/demo/page.html",
        "usr/share/javascript/lib/lib.js",
    ]
    assert "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" in found
    assert found["usr/bin/demo"].mode == 0o755


def test_a_path_that_no_package_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="have no usr/bin/dmeo"):
        build._extract(system(tmp_path), tmp_path / "tree", ["usr/bin/dmeo"], with_authorities=False)


def test_a_link_that_leads_out_of_the_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="leads out of the image"):
        build._extract(system(tmp_path), tmp_path / "tree", ["usr/share/bad"], with_authorities=False)


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("otelcol version 1.2.3\n", True),
        ('{"gitVersion":"v1.2.3"}', True),
        ("prometheus, version 1.2.3+ds1", True),
        ("1.2.3+ds1-2", True),
        ("version 1.2.30", False),
        ("version 11.2.3", False),
        ("version 1.2.3.4", False),
        ("", False),
    ],
)
def test_the_catalogue_may_not_say_another_version_than_the_program(said: str, right: bool) -> None:
    if right:
        build._check_version("demo", "1.2.3", said)
    else:
        with pytest.raises(LocalError, match=r"another version than 1\.2\.3"):
            build._check_version("demo", "1.2.3", said)


# ---- Go ---------------------------------------------------------------------------------------------------

FAKE_GO = """\
#!{python}
import os, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(" ".join(arguments) + "\\n")
if arguments[0] == "env":
    print("{version}")
elif arguments[0] == "list" and {offline}:
    print("dial tcp: no route to host")
    sys.exit(1)
elif arguments[0] == "build":
    path = arguments[arguments.index("-o") + 1]
    with open(path, "w") as program:
        program.write("#!/bin/sh\\necho demo 1.0 " + os.environ["GOFLAGS"] + "\\n")
    os.chmod(path, 0o755)
"""


class Workshop:
    """A project with one Go recipe, and a stand-in for Go."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.log = root / "go.log"
        recipe = root / "images" / "demo"
        recipe.mkdir(parents=True)
        (recipe / "go.mod").write_text("module demo\n\ngo 1.25\n\ntool example.org/demo\n")
        (root / "bin").mkdir()
        monkeypatch.setattr(build, "PROJECT", root)
        monkeypatch.setattr("rtinfra.images.image_catalogue.PROJECT", root)
        monkeypatch.setattr(CatalogueImage.recipe, "__defaults__", (root,))
        # Only our own Go: this computer's must not answer.
        monkeypatch.setenv("PATH", f"{root / 'bin'}:/usr/bin:/bin")
        monkeypatch.setenv("GOFLAGS", "-mod=mod")
        source = GoSource(
            directory="images/demo",
            version_arguments=("version",),
            version_variable="example.org/demo.version",
            package="rtinfra-demo" if HAS_DPKG else None,
        )
        image = CatalogueImage(title="Demo", version="1.0", licence="MIT", go=source)
        self.store = LocalStore(root / "images" / "store", Catalogue(images={"demo": image}))

    def install_go(self, version: str = "go1.26.8", offline: bool = False) -> None:
        go = self.root / "bin" / "go"
        text = FAKE_GO.format(python=sys.executable, log=str(self.log), version=version, offline=offline)
        go.write_text(text)
        go.chmod(0o755)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


def test_an_image_is_built_once_and_pinned(workshop: Workshop) -> None:
    workshop.install_go()
    built = build.build_image("demo", workshop.store, SILENT)
    assert (built.was_there, built.same_as_before) == (False, None)
    assert workshop.store.image("demo") == f"localhost/rtinfra/demo@{built.digest}"
    record = workshop.store.record("demo")
    assert record is not None
    assert record.made_from == {"toolchain": "go1.26.8"}
    if HAS_DPKG:
        assert workshop.store.package("demo").name == "rtinfra-demo"
    calls = workshop.log.read_text()
    assert "-X example.org/demo.version=v1.0" in calls
    assert "-trimpath" in calls
    assert build.build_image("demo", workshop.store, SILENT).was_there
    assert workshop.log.read_text() == calls


def test_an_image_may_have_several_programs_and_runs_the_first(workshop: Workshop) -> None:
    workshop.install_go()
    with (workshop.root / "images" / "demo" / "go.mod").open("a") as go_mod:
        go_mod.write("\ntool example.org/cmd/helper\n")
    image = workshop.store.catalogue.images["demo"]
    assert image.go is not None
    images = {"demo": image.model_copy(update={"go": image.go.model_copy(update={"version_prefix": ""})})}
    store = LocalStore(workshop.store.directory, Catalogue(images=images))
    build.build_image("demo", store, SILENT)
    calls = workshop.log.read_text()
    assert calls.count("-X example.org/demo.version=1.0") == 2
    with tarfile.open(store.archive("demo")) as archive:
        blobs = [archive.extractfile(member) for member in archive if member.name.startswith("blobs/")]
        contents = [blob.read() for blob in blobs if blob is not None]
    (layer,) = [content for content in contents if content.startswith(b"\x1f\x8b")]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        modes = {member.name: member.mode for member in tar}
    assert (modes["demo"], modes["helper"]) == (0o755, 0o755)
    assert any(b'"Entrypoint":["/demo"]' in content for content in contents)


def test_each_program_must_have_the_version_of_the_catalogue(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.install_go()
    with (workshop.root / "images" / "demo" / "go.mod").open("a") as go_mod:
        go_mod.write("\ntool example.org/cmd/helper\n")
    asked: list[str] = []
    monkeypatch.setattr(build, "_check_version", lambda name, version, said: asked.append(name))
    build.build_image("demo", workshop.store, SILENT)
    assert asked == ["demo", "helper"]


def test_several_images_are_built_and_the_others_named_with_the_reason(workshop: Workshop) -> None:
    workshop.install_go()
    outcome = build.build(["demo"], SILENT, workshop.store)
    assert (outcome.built, dict(outcome.unavailable)) == (("demo",), {})
    workshop.install_go(version="go1.19")
    workshop.store.forget("demo")
    outcome = build.build(["demo"], SILENT, workshop.store)
    assert outcome.built == ()
    assert outcome.unavailable == {"demo": "Go 1.25 is needed and this computer has go1.19"}


def test_building_again_says_whether_the_bytes_are_the_same(workshop: Workshop) -> None:
    workshop.install_go()
    build.build_image("demo", workshop.store, SILENT)
    assert build.build_image("demo", workshop.store, SILENT, again=True).same_as_before is True
    workshop.install_go(version="go1.27.0")
    assert build.build_image("demo", workshop.store, SILENT, again=True).same_as_before is None


def test_a_changed_recipe_is_built_anew(workshop: Workshop) -> None:
    workshop.install_go()
    build.build_image("demo", workshop.store, SILENT)
    (workshop.root / "images" / "demo" / "go.sum").write_text("example.org/x v1 h1:...\n")
    assert workshop.store.state("demo") == "outdated"
    assert not build.build_image("demo", workshop.store, SILENT).was_there
    assert workshop.store.state("demo") == "ready"


@pytest.mark.skipif(Path("/usr/bin/go").exists(), reason="Go is a package of this computer")
def test_without_go_the_reason_is_told(workshop: Workshop) -> None:
    with pytest.raises(BuildUnavailable, match="Go is not installed"):
        build.build_image("demo", workshop.store, SILENT)


def test_an_older_go_is_refused(workshop: Workshop) -> None:
    workshop.install_go(version="go1.19.8")
    with pytest.raises(BuildUnavailable, match=r"Go 1\.25 is needed and this computer has go1\.19\.8"):
        build.build_image("demo", workshop.store, SILENT)


def test_modules_that_cannot_be_fetched_are_a_reason_to_skip_and_leave_the_store_alone(workshop: Workshop) -> None:
    workshop.install_go()
    before = build.build_image("demo", workshop.store, SILENT)
    workshop.install_go(offline=True)
    with pytest.raises(BuildUnavailable, match="modules of demo cannot be fetched") as caught:
        build.build_image("demo", workshop.store, SILENT, again=True)
    assert "no route to host" in caught.value.detail
    assert workshop.store.image("demo").endswith(before.digest)
    assert not list(workshop.store.directory.glob(".build-*"))


# ---- vendors' images --------------------------------------------------------------------------------------

CATALOGUE_TEXT = """\
# Images.
images:
  # One.
  demo:
    title: Demo
    version: "1.0"
    licence: MIT
    # The vendor's.
    registry:
      repository: registry.example/vendor/demo
      tag: v1.0
      # Not pinned yet.
      digest: null
"""


class Skopeo:
    """Stands for skopeo and a registry that has one image, in OCI's or in Docker's format."""

    digest = f"sha256:{'cd' * 32}"

    def __init__(self, image: Path, docker_format: bool = False) -> None:
        self.calls: list[list[str]] = []
        self._image = image
        self._docker_format = docker_format

    def __call__(self, command: list[str], **options: Any) -> CompletedProcess[str]:
        self.calls.append(command)
        if command[1] == "inspect":
            return CompletedProcess(command, 0, f"{self.digest}\n", "")
        if self._docker_format and "--preserve-digests" in command:
            raise LocalError("skopeo ended with exit code 1", "look", "instructed to preserve digests")
        layout = Path(command[-1].removeprefix("oci:").partition(":")[0])
        with tarfile.open(self._image) as tar:
            tar.extractall(layout, filter="data")
        return CompletedProcess(command, 0, "", "")


@pytest.fixture
def vendor(tmp_path: Path) -> Path:
    path = tmp_path / "vendor.tar"
    write(Image("vendor/demo:v1.0", (Entry("demo", 0o755, b"program"),), "/demo"), path)
    return path


@pytest.mark.parametrize("docker_format", [False, True])
def test_pull_pins_the_digest_and_keeps_comments(
    docker_format: bool, tmp_path: Path, vendor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(CATALOGUE_TEXT)
    skopeo = Skopeo(vendor, docker_format)
    monkeypatch.setattr(programs, "ensure", lambda tools, report: None)
    monkeypatch.setattr(programs, "execute", skopeo)
    store = LocalStore(tmp_path / "store", load_catalogue(catalogue))
    assert store.state("demo") == "not pinned"
    store, was_there = pull("demo", store, SILENT, catalogue)
    assert not was_there
    assert catalogue.read_text() == CATALOGUE_TEXT.replace("null", Skopeo.digest)
    assert YAML().load(catalogue.read_text())["images"]["demo"]["registry"]["digest"] == Skopeo.digest
    assert store.image("demo") == f"localhost/rtinfra/demo@{read_digest(vendor)}"
    assert f"docker://registry.example/vendor/demo@{Skopeo.digest}" in skopeo.calls[-1]
    count = len(skopeo.calls)
    assert pull("demo", LocalStore(store.directory, load_catalogue(catalogue)), SILENT, catalogue)[1]
    assert len(skopeo.calls) == count


def test_pinning_changes_one_line_of_the_shipped_catalogue(tmp_path: Path) -> None:
    copy = tmp_path / "catalogue.yaml"
    copy.write_text(CATALOGUE.read_text(encoding="utf-8"), encoding="utf-8")
    _pin("garage", Skopeo.digest, copy)
    lines = zip(CATALOGUE.read_text(encoding="utf-8").splitlines(), copy.read_text().splitlines(), strict=True)
    assert [new.strip() for old, new in lines if old != new] == [f"digest: {Skopeo.digest}"]


def test_an_unreachable_registry_is_told_and_nothing_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(command: list[str], **options: Any) -> None:
        raise LocalError("skopeo ended with exit code 1", "look", "dial tcp: no route to host")

    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(CATALOGUE_TEXT)
    monkeypatch.setattr(programs, "ensure", lambda tools, report: None)
    monkeypatch.setattr(programs, "execute", unreachable)
    with pytest.raises(LocalError, match=r"could not be had from registry\.example/vendor/demo") as caught:
        pull("demo", LocalStore(tmp_path / "store", load_catalogue(catalogue)), SILENT, catalogue)
    assert "no route to host" in caught.value.detail
    assert "on a computer that reaches it" in caught.value.next_step
    assert catalogue.read_text() == CATALOGUE_TEXT


# ---- the command ------------------------------------------------------------------------------------------


def test_the_command_builds_what_it_can_and_says_what_it_cannot(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {**workshop.store.catalogue.images, "vendor": load_catalogue().images["loki"]}
    store = LocalStore(workshop.store.directory, Catalogue(images=images))
    monkeypatch.setattr(cli, "LocalStore", lambda: store)
    workshop.install_go()
    done = CliRunner().invoke(cli.app, ["build", "--json"])
    results = {each["name"]: each for each in json.loads(done.stdout)}
    assert done.exit_code == 0
    assert results["demo"]["result"] == "built"
    assert "rtinfra images pull vendor" in results["vendor"]["reason"]
    assert CliRunner().invoke(cli.app, ["check", "demo"]).exit_code == 0
    assert CliRunner().invoke(cli.app, ["check", "vendor"]).exit_code == 1
    assert CliRunner().invoke(cli.app, ["build", "vendor"]).exit_code == 1
    listed = CliRunner().invoke(cli.app, ["list"]).stdout
    assert "demo" in listed
    assert "missing" in listed
