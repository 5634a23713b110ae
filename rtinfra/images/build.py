"""Make what can be made on this computer: images of static Go programs and of Debian packages, and our packages."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rtinfra.images import debian
from rtinfra.images.image_catalogue import CatalogueImage, DebianSource, GoSource
from rtinfra.images.image_store import LocalStore, Record
from rtinfra.images.oci import Entry, Image, write
from rtinfra.local import bootstrap, programs
from rtinfra.local.archive import discover
from rtinfra.local.errors import LocalError
from rtinfra.local.file_lock import locked
from rtinfra.local.progress import Reporter
from rtinfra.paths import PROJECT

# Directories that programs and engines expect in every root; the engine mounts over some of them.
_COMMON = (
    *(Entry(name) for name in ("dev", "etc", "proc", "run", "sys", "usr", "usr/bin")),
    Entry("tmp", 0o1777),
)
_ENVIRONMENT = {"PATH": "/usr/bin"}
_GO_TIMEOUT = 3600


class BuildUnavailable(LocalError):
    """This computer cannot make the image: a tool, or what is to be fetched, cannot be had. Callers may skip."""


@dataclass(frozen=True)
class Built:
    """What `build_image` left in the store."""

    name: str
    digest: str
    was_there: bool
    same_as_before: bool | None
    """Whether building again gave the same bytes; None when there was nothing to compare with."""


@dataclass(frozen=True)
class Outcome:
    """Which of several images are in the store now, and why the others cannot be made on this computer."""

    built: tuple[str, ...]
    unavailable: Mapping[str, str]


def build(names: Iterable[str], report: Reporter, store: LocalStore | None = None) -> Outcome:
    """Build what this computer can make of the images; what it cannot make is no failure.

    Raises:
        LocalError: a build failed.
    """
    store = store or LocalStore()
    done: list[str] = []
    unavailable: dict[str, str] = {}
    for name in names:
        try:
            build_image(name, store, report)
            done.append(name)
        except BuildUnavailable as error:
            unavailable[name] = error.message
    return Outcome(tuple(done), unavailable)


def build_image(name: str, store: LocalStore, report: Reporter, *, again: bool = False) -> Built:
    """Build an image, and its package, unless the store has it by the same recipe already.

    `again` builds in any case. An interrupted build leaves what was there, or an image that counts as missing.

    Raises:
        BuildUnavailable: it cannot be made on this computer.
        LocalError: the build failed.
    """
    image = store.catalogue.image(name)
    if image.registry is not None:
        raise BuildUnavailable(
            f"{name} comes from its vendor's registry and is not built", f"run: rtinfra images pull {name}"
        )
    store.directory.mkdir(parents=True, exist_ok=True)
    with locked(store.directory / ".lock", "building images", timeout=3600):
        before = store.record(name)
        if store.state(name) == "ready" and not again:
            assert before is not None
            return Built(name, before.digest, True, None)
        for leftover in store.directory.glob(".*-*"):  # of a build that was killed; the lock says nobody's
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        recipe = image.recipe()
        with tempfile.TemporaryDirectory(prefix=".build-", dir=store.directory) as work:
            entries, made_from = _contents(name, image, Path(work), report)
            store.forget(name)
            with report.step(f"Packing the image {name}", usual=10):
                digest = write(_image(name, image, entries), store.archive_path(name))
            if (package := store.package_path(name)) is not None and image.go is not None and image.go.package:
                with report.step(f"Packing the Debian package {image.go.package}", usual=5):
                    content = debian.Package(image.go.package, image.version, image.title, image.licence)
                    debian.write(content, _program(name, Path(work)), f"usr/bin/{name}", package, Path(work))
        store.write_record(name, Record(recipe, digest, made_from))
    comparable = before is not None and before.recipe == recipe and before.made_from == made_from
    return Built(name, digest, False, before.digest == digest if comparable and before is not None else None)


def _image(name: str, image: CatalogueImage, entries: Iterable[Entry]) -> Image:
    # Names of the pre-defined keys: image-spec, annotations.md.
    annotations = {"title": name, "description": image.title, "version": image.version, "licenses": image.licence}
    return Image(
        reference=image.reference(name),
        entrypoint=str(image.debian.entrypoint) if image.debian else f"/{name}",
        entries=tuple({entry.path: entry for entry in (*_COMMON, *entries)}.values()),
        environment=_ENVIRONMENT,
        annotations={f"org.opencontainers.image.{key}": value for key, value in annotations.items()},
    )


def _contents(name: str, image: CatalogueImage, work: Path, report: Reporter) -> tuple[list[Entry], dict[str, object]]:
    if image.go is not None:
        built, toolchain = _build_go(name, image.version, image.go, work, report)
        return [Entry(program.name, 0o755, program) for program in built], {"toolchain": toolchain}
    assert image.debian is not None
    return _unpack_debian(name, image.version, image.debian, work, report)


# ---- Go ---------------------------------------------------------------------------------------------------


def _program(name: str, work: Path) -> Path:
    return work / name


def _build_go(name: str, version: str, source: GoSource, work: Path, report: Reporter) -> tuple[list[Path], str]:
    """Build the programs of a recipe; return them and the version of the toolchain."""
    recipe = PROJECT / source.directory
    toolchain = _toolchain(recipe / "go.mod")
    project = work / "source"
    shutil.copytree(recipe, project)
    if (project / "manifest.yaml").exists():
        _generate(project, work, report)
        targets = {name: "."}
    else:
        first, *further = _tools(project / "go.mod")
        targets = {name: first, **{posixpath.basename(target): target for target in further}}
    _fetch(project, list(targets.values()), name, report)
    flags = "-s -w"
    if source.version_variable:
        flags += f" -X {source.version_variable}={source.version_prefix}{version}"
    command = ["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", flags]
    built = [_program(target, work) for target in targets]
    for program in built:
        with report.step(f"Compiling {program.name} with {toolchain}", usual=60):
            _go([*command, "-o", str(program), targets[program.name]], project)
        said = programs.execute([program, *source.version_arguments], timeout=60).stdout
        _check_version(program.name, version, said)
    return built, toolchain


def _toolchain(go_mod: Path) -> str:
    """The version of Go on this computer; raises BuildUnavailable when there is none, or an older one than needed."""
    needed = _directives("go", go_mod)[0]
    if programs.find("go") is None:
        raise BuildUnavailable("Go is not installed on this computer", f"install Go {needed} or newer into PATH")
    found = _go(["env", "GOVERSION"], go_mod.parent).strip()
    if _numbers(found) < _numbers(needed):
        raise BuildUnavailable(f"Go {needed} is needed and this computer has {found}", "install a newer Go into PATH")
    return found


def _generate(project: Path, work: Path, report: Reporter) -> None:
    """Let the collector's own builder write the sources that its manifest stands for; go.mod and go.sum stay ours."""
    builder = project / "builder"
    tool = _tools(builder / "go.mod")[0]
    _fetch(builder, [tool], "the collector's builder", report)
    with report.step("Generating the collector's sources", usual=15):
        binary = work / "builder"
        _go(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", str(binary), tool], builder)
        out = work / "generated"
        # The manifest says what goes in, not where it is written.
        programs.execute(
            [binary, "--config=manifest.yaml", "--skip-compilation", "--skip-get-modules", f"--output-path={out}"],
            timeout=120,
            cwd=project,
        )
    for path in out.glob("*.go"):
        shutil.copy(path, project)


def _fetch(directory: Path, targets: Sequence[str], name: str, report: Reporter) -> None:
    """Get the modules that programs need; nothing that only their tests need."""
    with report.step(f"Fetching the Go modules of {name}", usual=30):
        try:
            _go(["list", "-mod=readonly", "-deps", "-f", "{{if .Error}}{{.Error}}{{end}}", *targets], directory)
        except LocalError as error:
            if "SECURITY ERROR" in error.detail or "go.sum" in error.detail:
                raise  # what is pinned and what came differ: nothing to skip
            raise BuildUnavailable(
                f"the Go modules of {name} cannot be fetched",
                "check the network and `go env GOPROXY`; the last lines above say what failed",
                error.detail,
            ) from error


def _go(arguments: Sequence[str], directory: Path) -> str:
    """Run Go, unmoved by this user's Go settings but for where modules come from and are kept."""
    environment = {
        "CGO_ENABLED": "0",
        "GOOS": "linux",
        "GOARCH": "amd64",
        "GOAMD64": "v1",
        "GOEXPERIMENT": "",
        "GOFLAGS": "",
        "GOWORK": "off",
        "GO111MODULE": "on",
        # What is installed is used; another toolchain is never fetched.
        "GOTOOLCHAIN": "local",
        # Every module is checked against go.sum. The public checksum database, which is only asked about modules
        # that go.sum lacks, cannot be reached everywhere.
        "GOSUMDB": "off",
    }
    return programs.execute(["go", *arguments], timeout=_GO_TIMEOUT, env=environment, cwd=directory).stdout


def _tools(go_mod: Path) -> list[str]:
    return _directives("tool", go_mod)


def _directives(word: str, go_mod: Path) -> list[str]:
    """The arguments of a directive's lines in a go.mod file, at least one (https://go.dev/ref/mod)."""
    found = re.findall(rf"^{word} (\S+)$", go_mod.read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise LocalError(f"{go_mod} has no line `{word} ...`", "add it; the recipes of images/ need it")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _check_version(name: str, version: str, said: str) -> None:
    """The catalogue must not say another version than the program itself."""
    if not re.search(rf"(?<![\d.]){re.escape(version)}(?![\d.]*\d)", said):
        raise LocalError(
            f"{name} says it has another version than {version}, the one in images/catalogue.yaml",
            "write the version it has into the catalogue, or change the recipe",
            said[-500:],
        )


# ---- Debian packages --------------------------------------------------------------------------------------

_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_AUTHORITIES = "usr/share/ca-certificates/mozilla"
# What of the C library every program needs, and the places it is looked for (usrmerge).
_C_LIBRARY = ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu/libc.so.6")
_LINKS = (Entry("lib", link="usr/lib"), Entry("lib64", link="usr/lib64"))


def _unpack_debian(
    name: str, version: str, source: DebianSource, work: Path, report: Reporter
) -> tuple[list[Entry], dict[str, object]]:
    """Unpack the packages and choose what is kept; return it and the versions of the packages."""
    programs.ensure(bootstrap.tools(), report)
    tar = work / "tree.tar"
    packages = [*source.packages, *(["ca-certificates"] if source.certificates else [])]
    with report.step(f"Fetching Debian packages for {name}: {', '.join(packages)}", usual=30):
        marker = "rtinfra-package"
        show = f'dpkg-deb --show --showformat "{marker} \\${{Package}} \\${{Version}}\\n"'
        said = bootstrap.bootstrap(
            discover(),
            source.suite,
            variant="extract",
            packages=packages,
            hooks=[f'--extract-hook=for file in "$1"/var/cache/apt/archives/*.deb; do {show} "$file"; done'],
            target=tar,
            work=work,
        )
    versions = dict(re.findall(rf"^{marker} (\S+) (\S+)$", said, re.MULTILINE))
    tree = work / "tree"
    kept = _extract(tar, tree, [str(path).lstrip("/") for path in source.keep], with_authorities=source.certificates)
    entries = {entry.path: entry for entry in (*_LINKS, *kept)}
    if source.certificates:
        parts = [path.read_bytes().rstrip() + b"\n" for path in sorted((tree / _AUTHORITIES).rglob("*.crt"))]
        entries = {path: entry for path, entry in entries.items() if not path.startswith(_AUTHORITIES)}
        entries[_BUNDLE] = Entry(_BUNDLE, 0o644, b"".join(parts))
    _check_version(name, version, versions.get(source.packages[0], "no such package"))
    _check_version(name, version, _run_in(tree, (str(source.entrypoint), "--version")))
    return list(_with_parents(entries)), {"packages": versions}


def _extract(tar: Path, tree: Path, keep: Sequence[str], *, with_authorities: bool) -> list[Entry]:
    """Take the paths to keep, what their links lead to and the C library out of the tar of a whole system."""
    required = [*keep, *_C_LIBRARY, *([_AUTHORITIES] if with_authorities else [])]
    with tarfile.open(tar, mode="r:") as opened:
        members = {posixpath.normpath(member.name): member for member in opened}
        chosen: dict[str, Entry] = {}
        while required:
            top = required.pop()
            below = [path for path in members if path == top or path.startswith(f"{top}/")]
            if not below:
                raise LocalError(f"the Debian packages have no {top}", "correct `keep` in images/catalogue.yaml")
            for path in set(below) - chosen.keys():
                member, place = members[path], tree / path
                mode = member.mode & 0o755  # nothing in an image runs with other rights than its caller's
                if member.issym():
                    target = _link_target(path, member.linkname)
                    required.append(target)
                    chosen[path] = Entry(path, link=member.linkname)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.symlink_to(os.path.relpath(tree / target, place.parent))
                elif member.isdir():
                    chosen[path] = Entry(path, mode)
                elif (content := opened.extractfile(member)) is not None:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with place.open("wb") as file:
                        shutil.copyfileobj(content, file)
                    place.chmod(mode | 0o200)
                    chosen[path] = Entry(path, mode, place)
    return list(chosen.values())


def _link_target(path: str, link: str) -> str:
    """The path in the image that a symbolic link leads to."""
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(path), link)).lstrip("/")
    if joined.startswith("../"):
        raise LocalError(f"the link {path} in a Debian package leads out of the image: {link}", "report it")
    return joined


def _run_in(tree: Path, command: Sequence[str]) -> str:
    """Run a program of the image with the image's own C library, without root."""
    loader, library = (tree / path for path in _C_LIBRARY)
    program = tree / command[0].lstrip("/")
    loading: list[str | Path] = [loader, "--inhibit-cache", "--library-path", library.parent]
    listed = programs.execute([*loading, "--list", program], timeout=60)
    outside = [line.strip() for line in listed.stdout.splitlines() if " => " in line and str(tree) not in line]
    if outside:
        raise LocalError(
            f"{command[0]} needs libraries that are not in the image: {'; '.join(outside)}",
            "add them to `keep` in images/catalogue.yaml",
        )
    return programs.execute([*loading, program, *command[1:]], timeout=60).stdout


def _with_parents(entries: Mapping[str, Entry]) -> Iterable[Entry]:
    parents = {str(parent) for path in entries for parent in PurePosixPath(path).parents} - {"."}
    yield from (Entry(path) for path in sorted(parents - entries.keys()))
    yield from entries.values()
