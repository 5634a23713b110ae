"""Controls of who may reach a host: the recorded one passes, and each wrong value is found and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtinfra.verify import Report, Status, run
from rtinfra.verify.look import packet_filter
from rtinfra.verify.look.answer import Answer
from rtinfra.verify.look.sockets import Listening, listening
from tests.record_looks import PLACE, rt_host

Verify = Callable[..., dict[str, Any]]
CONTROLS = ("L-15.1", "L-15.2", "L-15.3", "L-15.4")
TABLE = (PLACE / "packet_filter.txt").read_text(encoding="utf-8").partition("\n")[2].strip()


@pytest.fixture
def verify(tmp_path: Path, fake_ssh: Path, in_process: None) -> Verify:
    """Verify the recorded host after replacing text in its answer; returns each control's result."""

    def look(*changes: tuple[str, str], settings: str = "{}") -> dict[str, Any]:
        inventory = tmp_path / "hosts.yaml"
        inventory.write_text(
            f"hosts:\n  robot: {{groups: [rt_hosts, lab], ssh: {{address: 127.0.0.1}}, settings: {settings}}}\n"
        )
        text = rt_host()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "answer").write_text(text, encoding="utf-8")
        report: Report = run(inventory, hosts=["robot"], controls=["L-15"], output=tmp_path / "reports")
        return {one.control: one for one in report.results}

    return look


def statuses(results: dict[str, Any]) -> dict[str, Status]:
    return {control: one.status for control, one in results.items()}


def test_the_recorded_host_passes(verify: Verify) -> None:
    assert statuses(verify()) == dict.fromkeys(CONTROLS, Status.PASS)


def changed(change: Callable[[list[Any]], None]) -> tuple[str, str]:
    document = json.loads(TABLE)
    change(document["nftables"])
    return TABLE, json.dumps(document)


def part(parts: list[Any], kind: str, name: str = "") -> Any:
    return next(one[kind] for one in parts if kind in one and one[kind].get("name", "") == name)


def _opened(parts: list[Any]) -> None:
    part(parts, "set", "open4").setdefault("elem", []).append({"concat": ["tcp", 8080, "192.0.2.9"]})


def _forgotten(parts: list[Any]) -> None:
    part(parts, "set", "ours")["elem"].pop()


def _harmless(parts: list[Any]) -> None:
    rule = [one for one in parts if "rule" in one][-1]["rule"]
    rule["expr"][-1] = {"accept": None}


def _before_all(parts: list[Any]) -> None:
    parts.append({"rule": {"chain": "input", "expr": [{"accept": None}]}})


def _policy(parts: list[Any]) -> None:
    part(parts, "chain", "input")["policy"] = "drop"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_opened, "tcp 8080 192.0.2.9/32"),
        (_forgotten, "tcp 8081"),
        (_harmless, "ours accept"),
        (_before_all, "5"),
        (_policy, "drop"),
    ],
)
def test_another_table_is_no_filter(verify: Verify, change: Callable[[list[Any]], None], named: str) -> None:
    found = verify(changed(change))["L-15.1"]
    assert found.status is Status.FAIL
    assert named in f"{found.actual} {found.expected}"


def test_what_has_to_be_open_and_is_not_is_named(verify: Verify) -> None:
    opened = '{packet_filter: {also_open: [{port: 2049, protocol: tcp, networks: ["192.0.2.0/24"]}]}}'
    found = verify(settings=opened)["L-15.1"]
    assert found.status is Status.FAIL
    assert "tcp 2049 192.0.2.0/24" in found.actual


def test_a_table_that_is_gone_is_missed(verify: Verify) -> None:
    assert statuses(verify((TABLE, ""))) == {
        "L-15.1": Status.FAIL,
        "L-15.2": Status.FAIL,
        "L-15.3": Status.PASS,
        "L-15.4": Status.PASS,
    }


def test_a_filter_that_is_off_is_said_to_be(verify: Verify) -> None:
    off = "{packet_filter: {enabled: false}}"
    found = verify((TABLE, ""), settings=off)
    assert (found["L-15.1"].status, found["L-15.2"].status) == (Status.NOT_APPLICABLE, Status.PASS)
    assert "packet_filter.enabled is false: everybody reaches every port" in str(found["L-15.1"])
    assert verify(settings=off)["L-15.2"].status is Status.FAIL, "it is there all the same"


def socket(text: str) -> tuple[str, str]:
    return "@@sockets\n", f"@@sockets\n{text}\n"


def test_an_unknown_program_is_named(verify: Verify) -> None:
    found = verify(socket('tcp LISTEN 0 5 0.0.0.0:4444 0.0.0.0:* users:(("nc",pid=9,fd=3))'))["L-15.3"]
    assert found.status is Status.FAIL
    assert "nc at tcp *:4444" in found.actual


@pytest.mark.parametrize(
    "line",
    [
        'udp UNCONN 0 0 0.0.0.0:41641 0.0.0.0:* users:(("resolver",pid=9,fd=3))',
        'tcp LISTEN 0 5 127.0.0.1:6010 0.0.0.0:* users:(("sshd-session",pid=9,fd=3))',
        'tcp LISTEN 0 5 *:2049 *:* users:(("rpc.nfsd",pid=9,fd=3))',
    ],
)
def test_a_known_one_is_none(verify: Verify, line: str) -> None:
    opened = '{packet_filter: {also_open: [{port: 2049, protocol: tcp, networks: ["192.0.2.0/24"]}]}}'
    assert verify(socket(line), settings=opened)["L-15.3"].status is Status.PASS


def test_a_program_that_took_the_name_of_ssh_is_found_by_its_port(verify: Verify) -> None:
    line = 'tcp LISTEN 0 5 0.0.0.0:2222 0.0.0.0:* users:(("sshd",pid=9,fd=3))'
    assert "sshd at tcp *:2222" in verify(socket(line))["L-15.3"].actual


def test_what_is_for_the_host_alone_and_open_is_found(verify: Verify) -> None:
    found = verify(("127.0.0.1:8080 ", "0.0.0.0:8080 "))["L-15.4"]
    assert found.status is Status.FAIL
    assert "rt_process at tcp *:8080, meant to be at loopback" in found.actual


# ---- the looks


def test_lines_of_ss() -> None:
    assert listening('tcp LISTEN 0 128 [::]:22 [::]:* users:(("sshd",pid=1,fd=7),("sshd",pid=2,fd=7))') == Listening(
        "tcp", "*", 22, ("sshd",)
    )
    line = "udp UNCONN 0 0 [fe80::5054:ff:fe12:3456%ens3]:546 [::]:*"
    assert listening(line) == Listening("udp", "fe80::5054:ff:fe12:3456", 546, ())
    assert listening("tcp LISTEN 0 5 [::ffff:127.0.0.1]:80 *:*").is_local


@hypothesis.settings(deadline=None)
@given(
    st.sampled_from(["tcp", "udp"]),
    st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(lambda one: f"[{one}]"), st.just("*")),
    st.integers(1, 65535),
    st.lists(st.from_regex(r"[a-z ()_-]{1,15}", fullmatch=True), max_size=3),
)
def test_every_line_is_read(transport: str, address: str, port: int, names: list[str]) -> None:
    users = ",".join(f'("{name}",pid=1,fd=2)' for name in names)
    found = listening(f"{transport}   LISTEN 0      128   {address}:{port}   *:*   users:({users})")
    assert (found.transport, found.port) == (transport, port)
    assert found.programs == tuple(dict.fromkeys(names))


@hypothesis.settings(deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text(max_size=5), st.booleans()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["nftables", "chain", "rule", "set", "hook", "expr", "elem", "concat", "name"]),
                inner,
                max_size=4,
            ),
        ),
        max_leaves=12,
    )
)
def test_no_answer_of_nft_ends_a_verification(document: object) -> None:
    for whole in (document, {"nftables": document}):
        try:
            packet_filter.read(Answer({"packet_filter": [json.dumps(whole)]}))
        except ValueError as error:
            assert str(error)
