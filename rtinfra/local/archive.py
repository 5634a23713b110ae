"""Which Debian archive this machine is configured to use.

rtinfra never names an archive itself: it takes the one in the machine's apt configuration (a mirror inside
a company, a proxy, a snapshot), so it works wherever ``apt-get install`` works. Formats: sources.list(5).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit, urlunsplit

from rtinfra.local.errors import LocalError

DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ARCHIVE_VARIABLE = "RTINFRA_LAB_ARCHIVE"
SECURITY_VARIABLE = "RTINFRA_LAB_SECURITY_ARCHIVE"

# The names under which a Debian release is found in an archive; other projects' archives mostly have others.
_RELEASES = "bullseye|bookworm|trixie|forky|sid|oldstable|stable|testing|unstable"
_SUITE = re.compile(rf"(?:{_RELEASES})/?")
_SECURITY_SUITE = re.compile(rf"(?:{_RELEASES})(?:-security|/updates)/?")

# What of the machine's apt configuration has to hold for the guest too: the way out, and whether release
# files may look old (snapshots, machines whose clock is not the world's).
_OPTIONS = (
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
)
# The file with the authorities that sign for archives: for one host, or for all.
_CA_FILE = re.compile(
    r"^Acquire::https::(?:(?P<host>[^:\s]+)::)?CaInfo \"(?P<path>.+)\";$", re.MULTILINE | re.IGNORECASE
)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# The name of the host as seen by a guest in QEMU's user-mode network.
GUEST_VIEW_OF_HOST = "10.0.2.2"


@dataclass(frozen=True)
class Source:
    """One entry of a sources list."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    """A path, a list of key fingerprints or the key itself; empty when apt's trusted keys decide."""
    trusted: bool = False


@dataclass(frozen=True)
class Login:
    """Name and password for servers, as apt_auth.conf(5) has them; empty or None stands for any."""

    scheme: str
    host: str
    port: int | None
    path: str
    name: str
    password: str = field(repr=False)

    def is_for(self, place: SplitResult) -> bool:
        """Whether it is meant for an address. Without a scheme it is told to nobody who could be overheard."""
        return (
            place.scheme == (self.scheme or "https")
            and place.hostname == self.host
            and self.port in (None, place.port)
            and place.path.startswith(self.path)
        )


@dataclass(frozen=True)
class Archive:
    """Where packages of Debian come from, and whose signature they carry.

    `logins` are for servers that ask for one, `authorities` the files with those who sign for servers, by host; that of
    the empty host is for all others.
    """

    main: tuple[str, ...]
    security: tuple[str, ...] = ()
    keyring: Path = DEBIAN_KEYRING
    trusted: bool = False
    options: tuple[tuple[str, str], ...] = ()
    """apt options (name, value) that the guest needs as well."""
    logins: tuple[Login, ...] = ()
    authorities: tuple[tuple[str, Path], ...] = ()


def parse_deb822(text: str) -> list[Source]:
    """The enabled binary entries of a ``.sources`` file."""
    sources = []
    # A comment line may stand inside a stanza and belongs to nothing (deb822(5)).
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t") and key:
                fields[key] += "\n" + line.strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                key = name.strip().lower()
                fields[key] = value.strip()
        enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0", "off")
        if "deb" not in fields.get("types", "").split() or not enabled:
            continue
        sources.append(
            Source(
                uris=tuple(fields.get("uris", "").split()),
                suites=tuple(fields.get("suites", "").split()),
                components=tuple(fields.get("components", "").split()),
                signed_by=fields.get("signed-by", "").strip(),
                trusted=fields.get("trusted", "").lower() == "yes",
            )
        )
    return sources


def parse_one_line(text: str) -> list[Source]:
    """The binary entries of a ``sources.list`` file."""
    pattern = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>.*)$")
    sources = []
    for line in text.splitlines():
        match = pattern.match(line.split("#", 1)[0].strip())
        if match is None:
            continue
        words = shlex.split(match["options"] or "")
        options = dict(word.split("=", 1) for word in words if "=" in word)
        sources.append(
            Source(
                uris=(match["uri"],),
                suites=(match["suite"],),
                components=tuple(match["rest"].split()),
                signed_by=options.get("signed-by", ""),
                trusted=options.get("trusted") == "yes",
            )
        )
    return sources


def read_sources(apt_directory: Path) -> list[Source]:
    """All binary entries below ``apt_directory`` (usually /etc/apt), in apt's order."""
    main = apt_directory / "sources.list"
    parts = sorted((apt_directory / "sources.list.d").glob("*"))
    sources = []
    for path in [main, *parts]:
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".list":
            sources += parse_one_line(text)
        elif path.suffix == ".sources":
            sources += parse_deb822(text)
    return sources


def parse_apt_config(dump: str) -> dict[str, str]:
    """The options the guest needs too, out of the text of ``apt-config dump``."""
    values = {}
    required = {name.lower(): name for name in _OPTIONS}
    for match in re.finditer(r'^(\S+) "(.*)";$', dump, re.MULTILINE):
        name = required.get(match[1].lower())
        if name and match[2]:
            values[name] = match[2]
    return values


def parse_authorities(dump: str) -> tuple[tuple[str, Path], ...]:
    """Return the files with certificate authorities out of the text of ``apt-config dump``, by host."""
    return tuple((match["host"] or "", Path(match["path"])) for match in _CA_FILE.finditer(dump))


def parse_logins(text: str) -> list[Login]:
    """Return the logins of an auth.conf, apt_auth.conf(5); those without name and password are none."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found: list[dict[str, str]] = []
    words = iter(" ".join(lines).split())
    for word in words:
        if word == "machine":
            found.append({word: next(words, "")})
        elif word in ("login", "password") and found:
            found[-1][word] = next(words, "")
    logins = []
    for entry in found:
        place = entry["machine"]
        try:
            parts = urlsplit(place if "://" in place else f"//{place}")
            host, port = parts.hostname, parts.port
        except ValueError:
            continue
        if host and entry.keys() >= {"login", "password"}:
            logins.append(Login(parts.scheme, host, port, parts.path, entry["login"], entry["password"]))
    return logins


def read_logins(apt_directory: Path) -> tuple[Login, ...]:
    """Return the logins below ``apt_directory`` that this user may read, in apt's order: the first that fits counts."""
    found = []
    for path in (apt_directory / "auth.conf", *sorted((apt_directory / "auth.conf.d").glob("*.conf"))):
        try:
            found += parse_logins(path.read_text(encoding="utf-8", errors="replace"))
        except (FileNotFoundError, PermissionError):
            continue
    return tuple(found)


def guest_address(uri: str) -> str:
    """``uri`` as a guest reaches it: a service on this machine's loopback is at another address there."""
    parts = urlsplit(uri)
    if parts.hostname not in _LOOPBACK:
        return uri
    credentials, at, _ = parts.netloc.rpartition("@")
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{credentials}{at}{GUEST_VIEW_OF_HOST}{port}"))


def _is_debian(source: Source) -> bool:
    """Whether an entry is Debian's own: others use the same names of suites, and sign with a key of their own."""
    if "debian-archive" in source.signed_by:
        return True
    return any("debian" in urlsplit(uri).path for uri in source.uris)


def choose(sources: Iterable[Source]) -> tuple[Source, Source | None]:
    """The entries of the Debian archive and of its security archive.

    Raises LocalError when no entry looks like Debian.
    """
    main = security = None
    for source in sources:
        if "main" not in source.components or not _is_debian(source):
            continue
        if main is None and any(_SUITE.fullmatch(suite) for suite in source.suites):
            main = source
        if security is None and any(_SECURITY_SUITE.fullmatch(suite) for suite in source.suites):
            security = source
    if main is None:
        raise LocalError(
            "this machine's apt configuration names no Debian archive, so there is nothing to build"
            " the lab machine from",
            "add Debian's archive to /etc/apt/sources.list.d, or name one in the environment variable"
            f" {ARCHIVE_VARIABLE}",
        )
    return main, security


def discover(apt_directory: Path = Path("/etc/apt"), environment: Mapping[str, str] | None = None) -> Archive:
    """The Debian archive this machine uses.

    ``RTINFRA_LAB_ARCHIVE`` and ``RTINFRA_LAB_SECURITY_ARCHIVE`` overrule the configuration. Raises LocalError
    when there is none, or when it can be reached from this machine only (file:, cdrom:).
    """
    environment = os.environ if environment is None else environment
    if override := environment.get(ARCHIVE_VARIABLE):
        extra = environment.get(SECURITY_VARIABLE, "")
        main = Source(uris=(override,), suites=(), components=())
        security = Source(uris=(extra,), suites=(), components=()) if extra else None
    else:
        main, security = choose(read_sources(apt_directory))
    uris = (*main.uris, *(security.uris if security else ()))
    for uri in uris:
        if urlsplit(uri).scheme not in ("http", "https"):
            raise LocalError(
                f"the Debian archive {uri} of this machine's apt configuration cannot be reached"
                " from a virtual machine",
                f"name one with an http or https address in the environment variable {ARCHIVE_VARIABLE}",
            )
    dump = _apt_config()
    return Archive(
        main=main.uris,
        security=security.uris if security else (),
        keyring=_keyring(main.signed_by),
        trusted=main.trusted,
        options=_options(dump, environment),
        logins=read_logins(apt_directory),
        authorities=parse_authorities(dump),
    )


def _keyring(signed_by: str) -> Path:
    """The key file of an entry; entries without one are checked with Debian's own keys."""
    first = signed_by.partition(",")[0].strip()
    return Path(first) if first.startswith("/") else DEBIAN_KEYRING


def _apt_config() -> str:
    try:
        return subprocess.run(["apt-config", "dump"], capture_output=True, text=True, timeout=30, check=True).stdout
    except FileNotFoundError as error:
        raise LocalError(
            "this machine has no apt, and the lab builds Debian from the archive that apt is configured for",
            "use a Debian 12 (or newer) machine",
        ) from error


def _options(dump: str, environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    values = parse_apt_config(dump)
    # apt itself falls back to the environment when no proxy is configured (apt-transport-http(1)).
    for scheme in ("http", "https"):
        if proxy := environment.get(f"{scheme}_proxy"):
            values.setdefault(f"Acquire::{scheme}::Proxy", proxy)
    return tuple(sorted(values.items()))


def mmdebstrap_source(archive: Archive, suite: str) -> str:
    """The sources list used while the guest is built, from the builder's point of view (deb822)."""
    return _render(archive, suite, str(archive.keyring), lambda uri: uri)


def guest_sources(archive: Archive, suite: str, *, backports: bool = False) -> str:
    """The content of the guest's ``/etc/apt/sources.list.d/debian.sources`` (deb822)."""
    return _render(archive, suite, str(guest_keyring(archive)), guest_address, backports=backports)


def guest_keyring(archive: Archive) -> Path:
    """Where the key of the archive lies in the guest: Debian's own come with its package."""
    if "debian-archive" in archive.keyring.name:
        return DEBIAN_KEYRING
    return Path("/etc/apt/keyrings") / f"lab-archive{archive.keyring.suffix}"


def _render(archive: Archive, suite: str, keyring: str, view: Callable[[str], str], *, backports: bool = False) -> str:
    stanzas = [(archive.main, f"{suite} {suite}-updates" + (f" {suite}-backports" if backports else ""))]
    if archive.security:
        stanzas.append((archive.security, f"{suite}-security"))
    trust = "Trusted: yes\n" if archive.trusted else ""
    return "\n".join(
        f"Types: deb\nURIs: {' '.join(map(view, uris))}\nSuites: {suites}\nComponents: main\n"
        f"Signed-By: {keyring}\n{trust}"
        for uris, suites in stanzas
    )


def guest_options(archive: Archive) -> str:
    """The content of an apt.conf.d file with the options the guest shares with this machine."""
    lines = (
        f'{name} "{guest_address(value) if name.endswith("Proxy") else value}";' for name, value in archive.options
    )
    return "".join(f"{line}\n" for line in lines)
