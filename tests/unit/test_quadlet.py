"""A container as systemd and Podman will read it."""

from __future__ import annotations

import configparser
import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rtinfra import quadlet
from rtinfra.operations.resources import Directory, File
from rtinfra.paths import PROJECT
from rtinfra.quadlet import Account, Container

REFERENCE = f"example.invalid/thing@sha256:{'a' * 64}"
ACCOUNT = Account("rtinfra-thing", 499)


def container(**changes: object) -> Container:
    values: dict[str, object] = {
        "name": "thing",
        "description": "A thing",
        "image": "thing",
        "account": ACCOUNT,
        "command": ("--flag", "value"),
        "config": (quadlet.config_file("thing", "thing.yml", b"a: 1\n"),),
        "config_mount": "/etc/thing",
        "data": {"thing": "/data"},
        "ready": "http://192.0.2.1:9999/-/ready",
        "memory_max": "256M",
        "cpu_quota": "50%",
    }
    return Container(**{**values, **changes})  # type: ignore[arg-type]


def unit_of(one: Container) -> configparser.RawConfigParser:
    (file,) = [path for path in quadlet.paths(one, REFERENCE) if path.path.endswith(".container")]
    assert isinstance(file, File)
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(file.content.decode())
    return parser


def test_nothing_is_fetched_and_nothing_is_allowed_that_is_not_needed() -> None:
    section = unit_of(container())["Container"]
    assert section["Image"] == REFERENCE
    assert section["Pull"] == "never"
    assert (section["DropCapability"], section["NoNewPrivileges"], section["ReadOnly"]) == ("all", "true", "true")
    assert section["User"] == "499:499"
    assert section["Exec"] == "--flag value"


def test_it_lives_in_the_slice_within_its_bounds_and_starts_when_it_answers() -> None:
    service = unit_of(container(ready_status=(200, 401), ready_seconds=30))["Service"]
    assert service["Slice"] == quadlet.SLICE
    assert (service["MemoryMax"], service["CPUQuota"]) == ("256M", "50%")
    assert service["ExecStartPost"] == f"{quadlet.WAIT_READY} 30 http://192.0.2.1:9999/-/ready 200 401"
    assert int(service["TimeoutStartSec"]) > 30


def test_every_file_restarts_exactly_this_container() -> None:
    files = [path for path in quadlet.paths(container(), REFERENCE) if isinstance(path, File)]
    assert {unit for file in files for unit in file.restarts} == {"thing.service"}
    assert len(files) == 2


def test_directories_come_before_what_is_in_them_and_data_belongs_to_the_account() -> None:
    nested = quadlet.config_file("thing", "rules/a.yml", b"")
    found = quadlet.paths(container(config=(nested,)), REFERENCE)
    names = [path.path for path in found]
    assert names.index("/etc/rtinfra/thing/rules") < names.index("/etc/rtinfra/thing/rules/a.yml")
    (data,) = [path for path in found if path.path == f"{quadlet.DATA_ROOT}/thing"]
    assert isinstance(data, Directory)
    assert (data.owner, data.mode) == ("rtinfra-thing", "0750")


def test_a_secret_is_for_the_account_alone() -> None:
    file = quadlet.secret_file("thing", "token", b"hunter2", ACCOUNT)
    assert (file.mode, file.owner, file.secret) == ("0600", "rtinfra-thing", True)
    assert "hunter2" not in repr(file)


def test_accounts_are_made_once_with_fixed_numbers() -> None:
    one, two = container(), container(name="thing-2")
    lines = quadlet.accounts_file([one, two]).content.decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ['u rtinfra-thing 499 "rtinfra container" /']


@pytest.fixture
def answers() -> Iterator[tuple[str, list[int]]]:
    """A server that gives these statuses in turn, the last one for ever; its URL."""
    statuses: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/-/ready", statuses
    server.shutdown()
    thread.join()
    server.server_close()


def wait(seconds: int, url: str, *statuses: int) -> subprocess.CompletedProcess[str]:
    script: Path = PROJECT / "templates" / "containers" / "wait-ready.sh"
    command = ["bash", str(script), str(seconds), url, *map(str, statuses)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_waiting_ends_when_the_program_is_ready(answers: tuple[str, list[int]]) -> None:
    url, statuses = answers
    statuses[:] = [503, 503, 200]
    assert wait(20, url, 200).returncode == 0


def test_waiting_ends_with_the_last_answer_when_it_never_is(answers: tuple[str, list[int]]) -> None:
    url, statuses = answers
    statuses[:] = [503]
    done = wait(1, url, 200)
    assert done.returncode == 1
    assert "did not become ready within 1 s: status 503, wanted 200" in done.stderr


def test_nobody_listening_is_no_answer() -> None:
    done = wait(1, "http://127.0.0.1:1/", 200)
    assert done.returncode == 1
    assert "no answer" in done.stderr
