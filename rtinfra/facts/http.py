"""HTTP as seen from a host: any number of requests in one command, with nothing but what a bare Debian has.

Perl is essential on Debian, an HTTP client is not. Requests are composed here and arrive as hexadecimal digits on
the helper's standard input: no quoting, and nothing of them is in an argument list that other users can read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

_SECONDS: Final = 10
# A body is what somebody else wrote, lines like this one included: its lines are counted, not searched for their end.
_ANSWER: Final = re.compile(r"@http (\S+) (\S+) (\d+) (\d+) (\d+)")
#: Bytes that are taken of an answer.
_MOST: Final = 32 << 20
_END: Final = "END-OF-REQUESTS"
# /proc/uptime is a clock with 10 ms steps that needs no module.
_HELPER: Final = r"""perl -MSocket=:all -e '
sub now { open my $f, "<", "/proc/uptime"; (split " ", <$f>)[0] }
while (<STDIN>) {
    my ($method, $url, $host, $port, $seconds, $request) = split " ";
    my ($t, $answer) = (now(), "");
    eval {
        local $SIG{ALRM} = sub { die };
        local $SIG{PIPE} = "IGNORE";
        alarm $seconds;
        my ($error, $address) = getaddrinfo($host, $port, {socktype => SOCK_STREAM});
        die if $error;
        socket(my $s, $address->{family}, SOCK_STREAM, 0) or die;
        connect($s, $address->{addr}) or die;
        my $rest = pack("H*", $request);
        while (length $rest) { substr($rest, 0, syswrite($s, $rest) // die) = "" }
        while (length $answer < MOST && sysread($s, my $part, 65536)) { $answer .= $part }
        alarm 0;
    };
    alarm 0;
    my ($status) = $answer =~ m{^HTTP/\S+ (\d+)};
    my ($body) = $answer =~ /\r?\n\r?\n(.*)/s;
    $body //= "";
    printf "\@http %s %s %d %d %d\n", $method, $url, $status // 0, (now() - $t) * 1000, 1 + $body =~ tr/\n//;
    print $body, "\n";
}'""".replace("MOST", str(_MOST))


@dataclass(frozen=True)
class Request:
    """One request. `headers` may hold secrets: they are not shown."""

    url: str
    method: str = "GET"
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    seconds: int = _SECONDS

    @property
    def line(self) -> str:
        """What the helper reads."""
        parts = urlsplit(self.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # HTTP/1.0: the answer ends with the connection and comes in one piece.
        head = [f"{self.method} {path} HTTP/1.0", f"Host: {parts.netloc}", "Connection: close"]
        head += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body or self.method != "GET":
            head.append(f"Content-Length: {len(self.body)}")
        raw = "\r\n".join([*head, "", ""]).encode() + self.body
        return f"{self.method} {self.url} {parts.hostname} {parts.port or 80} {self.seconds} {raw.hex()}"


@dataclass(frozen=True)
class HttpAnswer:
    """What a service answered; status 0 for no answer."""

    method: str
    url: str
    status: int
    milliseconds: int
    body: str = field(repr=False)

    @property
    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def loopback(port: int, path: str) -> str:
    """Return the URL of a service that only the host itself reaches."""
    return f"http://127.0.0.1:{port}{path}"


def command(requests: Iterable[Request]) -> str:
    """Return a shell command that makes the requests one after the other; its output is for `parse`."""
    return "\n".join([f"{_HELPER} <<'{_END}'", *(request.line for request in requests), _END, ""])


def parse(lines: Iterable[str]) -> Iterator[HttpAnswer]:
    """Yield the answers in the output of `command`."""
    rest = iter(lines)
    for line in rest:
        if match := _ANSWER.fullmatch(line):
            method, url, status, milliseconds, count = match.groups()
            body = "\n".join(islice(rest, int(count))).strip()
            yield HttpAnswer(method, url, int(status), int(milliseconds), body)
