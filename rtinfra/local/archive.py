"""Which archive of Debian, or of Ubuntu, this machine is configured to use.

rtinfra never names an archive itself: it takes the one in the machine's apt configuration (a mirror inside
a company, a proxy, a snapshot), so it works wherever ``apt-get install`` works. Formats: sources.list(5).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from rtinfra.local.errors import LocalError

APT = Path("/etc/apt")
DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
UBUNTU_KEYRING = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")
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
# How apt asks web servers: through which proxies, believing whose signatures, with which certificate of its own.
_TRANSPORT = re.compile(r"^(?P<name>Acquire::https?::\S+) \"(?P<value>.*)\";$", re.MULTILINE | re.IGNORECASE)
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
class Archive:
    """Where packages of Debian come from, and whose signature they carry."""

    main: tuple[str, ...]
    security: tuple[str, ...] = ()
    keyring: Path = DEBIAN_KEYRING
    trusted: bool = False
    options: tuple[tuple[str, str], ...] = ()
    """apt options (name, value) that the guest needs as well."""
    transport: tuple[tuple[str, str], ...] = ()
    """apt options (name, value) of this machine about how web servers are asked; a guest has other files."""
    apt_directory: Path = APT
    """Where apt has its settings, logins among them."""


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


def parse_transport(dump: str) -> tuple[tuple[str, str], ...]:
    """Return how this machine's apt asks web servers, out of the text of ``apt-config dump``."""
    return tuple((match["name"], match["value"]) for match in _TRANSPORT.finditer(dump) if match["value"])


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


def _is_ubuntu(source: Source) -> bool:
    """Whether an entry is Ubuntu's own. Its subscription archives have the same suites, and keys of their own."""
    if source.signed_by:
        return "ubuntu-archive" in source.signed_by
    return any(urlsplit(uri).path.strip("/") == "ubuntu" for uri in source.uris)


def _names_ubuntu(suite: str) -> bool:
    return bool(suite) and not _SUITE.fullmatch(suite)


def choose(sources: Iterable[Source], suite: str = "") -> tuple[Source, Source | None]:
    """The entries of the archive and of its security archive.

    `suite` is the code name of an Ubuntu; any other, and none, stand for whichever release of Debian there is. Raises
    LocalError when no entry looks like that.
    """
    is_ubuntu = _names_ubuntu(suite)
    name, own, main_suite, security_suite = (
        ("Ubuntu", _is_ubuntu, re.compile(re.escape(suite)), re.compile(f"{re.escape(suite)}-security"))
        if is_ubuntu
        else ("Debian", _is_debian, _SUITE, _SECURITY_SUITE)
    )
    main = security = None
    for source in sources:
        if "main" not in source.components or not own(source):
            continue
        if main is None and any(main_suite.fullmatch(each) for each in source.suites):
            main = source
        if security is None and any(security_suite.fullmatch(each) for each in source.suites):
            security = source
    if main is None:
        purpose = f"to take packages of {suite} from" if is_ubuntu else "to build the lab machine from"
        raise LocalError(
            f"this machine's apt configuration names no {name} archive, so there is nothing {purpose}",
            f"add {name}'s archive to /etc/apt/sources.list.d, or name one in the environment variable"
            f" {ARCHIVE_VARIABLE}",
        )
    return main, security


def discover(
    apt_directory: Path = APT,
    environment: Mapping[str, str] | None = None,
    suite: str = "",
    *,
    for_guests: bool = True,
) -> Archive:
    """The archive this machine uses for `suite`, as `choose` understands it.

    ``RTINFRA_LAB_ARCHIVE`` and ``RTINFRA_LAB_SECURITY_ARCHIVE`` overrule the configuration. Raises LocalError
    when there is none, or (``for_guests``) when it can be reached from this machine only (file:, a list of mirrors).
    """
    environment = os.environ if environment is None else environment
    if override := environment.get(ARCHIVE_VARIABLE):
        extra = environment.get(SECURITY_VARIABLE, "")
        main = Source(uris=(override,), suites=(), components=())
        security = Source(uris=(extra,), suites=(), components=()) if extra else None
    else:
        main, security = choose(read_sources(apt_directory), suite)
    uris = (*main.uris, *(security.uris if security else ()))
    for uri in uris:
        if for_guests and urlsplit(uri).scheme not in ("http", "https"):
            raise LocalError(
                f"the archive {uri} of this machine's apt configuration cannot be reached from a virtual machine",
                f"name one with an http or https address in the environment variable {ARCHIVE_VARIABLE}",
            )
    dump = _apt_config()
    return Archive(
        main=main.uris,
        security=security.uris if security else (),
        keyring=_keyring(main.signed_by, UBUNTU_KEYRING if _names_ubuntu(suite) else DEBIAN_KEYRING),
        trusted=main.trusted,
        options=_options(dump, environment),
        transport=parse_transport(dump),
        apt_directory=apt_directory,
    )


def _keyring(signed_by: str, usual: Path) -> Path:
    """The key file of an entry; entries without one are checked with the distributor's own keys."""
    first = signed_by.partition(",")[0].strip()
    return Path(first) if first.startswith("/") else usual


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
