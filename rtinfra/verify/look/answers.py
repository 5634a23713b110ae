"""What the host's programs answer over HTTP, asked on the host itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rtinfra.facts import http
from rtinfra.facts.http import HttpAnswer, Request, loopback
from rtinfra.verify.look import mirror_server
from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions

_SAMPLE: Final = re.compile(r"([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)(?: -?\d+)?$")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Answers:
    """All answers, in the order in which they were asked for."""

    all: tuple[HttpAnswer, ...]

    def at(self, port: int, path: str) -> tuple[HttpAnswer, ...]:
        """Return the answers of a service on loopback."""
        return tuple(answer for answer in self.all if answer.url == loopback(port, path))

    def last(self, url: str) -> HttpAnswer:
        """Return the last answer from a URL; raises KeyError when it was not asked."""
        return {answer.url: answer for answer in self.all}[url]

    def metrics(self, port: int) -> dict[str, float]:
        """Return the metrics of a port of loopback by name, the last sample of each."""
        return {sample.name: sample.value for answer in self.at(port, "/metrics") for sample in samples(answer)}


@dataclass(frozen=True)
class Sample:
    """One line of metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


def samples(answer: HttpAnswer) -> Iterator[Sample]:
    """Yield what an answer in Prometheus's text format holds."""
    for line in answer.body.splitlines():
        if match := _SAMPLE.match(line):
            labels = {name: re.sub(r"\\(.)", r"\1", value) for name, value in _LABEL.findall(match[2] or "")}
            yield Sample(match[1], labels, float(match[3]))


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask the application, the telemetry programs, and the mirror's server without TLS."""
    commands: dict[str, str] = {}
    if places := questions.application:
        health = [Request(loopback(port, "/health")) for port in places.health_ports]
        others = [
            *(Request(loopback(port, "/health/live")) for port in places.health_ports),
            *(Request(loopback(port, "/metrics")) for port in places.metrics_ports),
        ]
        # Asked again at the end: a slow machine may be late once.
        commands["http_early"] = http.command(health)
        commands["http"] = http.command([*health, *others, *health])
    if questions.programs:
        commands["http_telemetry"] = http.command(questions.requests)
    mirror = questions.mirror
    if mirror is not None and mirror.registry_port is not None:
        commands["http_mirror"] = http.command(mirror_server.requests(mirror.place, mirror.registry_port))
    return commands


def read(answer: Answer) -> Answers:
    """Read what `ask` asked."""
    sections = ("http_early", "http", "http_telemetry", "http_mirror")
    return Answers(tuple(found for name in sections for found in http.parse(answer.lines(name))))
