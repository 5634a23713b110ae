"""Downloads by apt itself: as this computer's apt is configured, each file compared with its hash.

So proxies (of single hosts too), logins, authorities, client certificates, lists of mirrors and apt's own patience hold
here as they do for ``apt-get``: apt.conf(5), apt_auth.conf(5), apt-transport-mirror(1).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit

from rtinfra.local import programs
from rtinfra.local.archive import APT
from rtinfra.local.programs import Tool
from rtinfra.mirror.errors import MirrorError

HELPER = Tool("/usr/lib/apt/apt-helper", "apt")
_FAILED = re.compile(r"^Err:\d+ (?P<url>\S+)\n {2}(?P<reason>.*)$", re.MULTILINE)


class Part(NamedTuple):
    """One file of a call."""

    url: str
    path: Path
    """Where it goes. What is there already is its beginning."""
    sha256: str


@dataclass(frozen=True)
class Outcome:
    """What a call came to."""

    complete: bool
    """Every file is there, and apt has compared it with its hash."""
    reasons: Mapping[str, str]
    """What apt says of those that failed, by URL."""
    said: str
    """What apt says besides."""


@dataclass(frozen=True, eq=False)
class Call:
    """A call of apt's helper that runs, in processes of its own."""

    _process: subprocess.Popen[bytes]
    _descriptor: int
    _output: BinaryIO
    _errors: BinaryIO

    def fileno(self) -> int:
        """Return what is readable once the call has ended; for select(2)."""
        return self._descriptor

    def end(self) -> None:
        """End it. What has arrived gets the server's date, by which the next call knows whether it can go on."""
        if self._process.poll() is None:
            programs.end_family(self._process)

    def outcome(self) -> Outcome:
        """Wait for its end and return what came of it."""
        code = self._process.wait()
        output, errors = (_text(file.fileno()) for file in (self._output, self._errors))
        besides = " ".join(_plain(errors).split()) or f"apt-helper ended with {code}"
        reasons = {match["url"]: _plain(match["reason"]) or besides for match in _FAILED.finditer(output)}
        return Outcome(code == 0, reasons, besides)


@contextmanager
def calling(parts: Iterable[Part], options: Sequence[str]) -> Iterator[Call]:
    """Start a call; it ends with this, if not before."""
    words = [HELPER.name, *options, "download-file"]
    for url, path, sha256 in parts:
        words += [url, str(path), f"SHA256:{sha256}"]
    # Files: nobody reads until it has ended, and a pipe would become full.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            # Ctrl-C is for us, who end it.
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        descriptor = os.pidfd_open(process.pid)
        call = Call(process, descriptor, output, errors)
        try:
            yield call
        finally:
            call.end()
            os.close(descriptor)


@contextmanager
def options(addresses: Iterable[str], apt_directory: Path = APT) -> Iterator[tuple[str, ...]]:
    """Give the options of calls that download from such addresses, with the logins of `apt_directory`.

    Arguments are seen by everybody on this computer: names and passwords of the addresses are in a file for the time
    of the calls, which its owner alone may read.

    Raises:
        MirrorError: a password is one that apt cannot be told.
    """
    words = ["-o", "quiet=1"]
    if os.geteuid() == 0:
        # The files go to a folder that the user _apt may not enter.
        words += ["-o", "APT::Sandbox::User=root"]
    own = None
    if apt_directory != APT:
        words += ["-o", f"Dir::Etc::netrc={apt_directory}/auth.conf"]
        words += ["-o", f"Dir::Etc::netrcparts={apt_directory}/auth.conf.d"]
        own = apt_directory / "auth.conf"
    logins = dict.fromkeys(filter(None, map(_login, addresses)))
    if not logins:
        yield tuple(words)
        return
    with tempfile.NamedTemporaryFile("w", prefix="rtinfra-", encoding="utf-8") as file:
        # Ahead of this computer's own: the first one that fits counts.
        file.write("".join(f"{login}\n" for login in logins) + _logins_in(own or _own_logins()))
        file.flush()
        yield (*words, "-o", f"Dir::Etc::netrc={file.name}")


def without_login(address: str) -> str:
    """Return an address without name and password."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else address


def _login(address: str) -> str:
    """Return the line of an auth.conf for the name and the password of an address; empty when it has none."""
    parts = urlsplit(address)
    if parts.username is None:
        return ""
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    name, password = unquote(parts.username), unquote(parts.password or "")
    if re.search(r"\s", name + password) or not (name and password):
        raise MirrorError(
            f"the name or the password in this computer's apt source {place} is empty or has a blank in it",
            "apt_auth.conf(5) knows no such login: give the archive another one",
        )
    return f"machine {place} login {name} password {password}"


def _own_logins() -> Path:
    """Return this computer's auth.conf; auth.conf.d is read by apt besides."""
    said = programs.execute(["apt-config", "shell", "FILE", "Dir::Etc::netrc/f"], timeout=30).stdout
    return Path(shlex.split(said)[0].partition("=")[2]) if said.strip() else Path(os.devnull)


def _logins_in(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, PermissionError):
        return ""


def _text(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")


def _plain(said: str) -> str:
    """Return words of apt without the address that a name was resolved to, and without passwords."""
    return re.sub(r"//[^/@\s]*@", "//", re.sub(r" \[IP: [^\]]*\]", "", said)).strip()
