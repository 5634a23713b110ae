"""A report is evidence: signed, complete, comparable, and readable by programs and people."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from typer import Typer
from typer.testing import CliRunner

from rtinfra.local import signatures
from rtinfra.local.errors import LocalError
from rtinfra.local.files import replace_file
from rtinfra.local.progress import Reporter
from rtinfra.local.signatures import ensure_key, public
from rtinfra.verify import ControlResult, HostProblem, Report, Status, VerifyError, cli, page, run, sealing, textfile
from rtinfra.verify.compare import compare, rendered
from tests.unit.monitoring_tools import tool
from tests.unit.test_verify_report import report, result


@pytest.fixture
def signed(inventory: Path, suite: Path, fake_ssh: Path, tmp_path: Path, in_process: None) -> Report:
    return run(inventory, tests=suite, output=tmp_path / "reports", hosts=["robot"])


def test_everything_is_there_and_the_signature_holds(signed: Report, report_key: Path) -> None:
    directory = signed.directory
    assert directory is not None
    names = {path.name for path in directory.iterdir()}
    assert names >= {"report.json", "report.html", "junit.xml", textfile.FILE, "SHA256SUMS", "SHA256SUMS.sig"}
    assert report_key.stat().st_mode & 0o777 == 0o600
    read = sealing.read_sealed(directory, report_key)
    assert read.results == signed.results
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=directory, check=False).returncode == 0


def test_a_report_says_which_host_it_was(signed: Report) -> None:
    facts = signed.hosts["robot"]
    assert re.fullmatch(r"[0-9a-f]{64}", facts.config_sha256)
    assert re.fullmatch(r"[0-9a-f]{64}", facts.machine_id_sha256)
    assert facts.host_key.startswith("SHA256:")
    assert re.fullmatch(r"[0-9a-f-]{36}", facts.boot_id)
    assert "6.12" in facts.kernel
    assert facts.round_trips == 1, "one look, whatever the number of controls"


@pytest.mark.parametrize("name", ["report.json", "report.html", "junit.xml"])
def test_a_changed_file_is_noticed(signed: Report, report_key: Path, name: str) -> None:
    assert signed.directory is not None
    path = signed.directory / name
    path.write_text(path.read_text().replace("FAIL", "PASS") + " ")
    with pytest.raises(LocalError, match=f"{name} is not the file that was signed: it was changed"):
        sealing.read_sealed(signed.directory, report_key)


def test_a_forged_manifest_is_noticed(signed: Report, report_key: Path) -> None:
    assert signed.directory is not None
    manifest = signed.directory / sealing.MANIFEST
    manifest.write_text(manifest.read_text().replace("a", "b"))
    with pytest.raises(LocalError, match="was changed after it was signed"):
        sealing.read_sealed(signed.directory, report_key)


def test_a_missing_signature_is_noticed(signed: Report, report_key: Path) -> None:
    assert signed.directory is not None
    (signed.directory / "SHA256SUMS.sig").unlink()
    with pytest.raises(LocalError, match="is not signed"):
        sealing.read_sealed(signed.directory, report_key)


def test_what_is_exchanged_after_its_hash_was_compared_is_not_read(
    signed: Report, report_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert signed.directory is not None
    path, real = signed.directory / "report.json", sealing._sha256
    ours, forged = path.read_bytes(), path.read_bytes().replace(b"FAIL", b"PASS")
    assert ours != forged

    def hashed(file: BinaryIO) -> str:
        found = real(file)
        if found == sha256(ours):
            replace_file(path, forged)
        return found

    monkeypatch.setattr(sealing, "_sha256", hashed)
    assert sealing.read_sealed(signed.directory, report_key).results == signed.results
    assert path.read_bytes() == forged


def test_a_manifest_that_is_exchanged_after_its_signature_was_checked_is_not_read(
    signed: Report, report_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert signed.directory is not None
    path, real = signed.directory / "report.json", signatures.verify
    ours, forged = path.read_bytes(), path.read_bytes().replace(b"FAIL", b"PASS")

    def verify(shown: str, data: bytes, signature: bytes, signers: str, namespace: str) -> str:
        said = real(shown, data, signature, signers, namespace)
        replace_file(path, forged)
        replace_file(Path(shown), data.replace(sha256(ours).encode(), sha256(forged).encode()))
        return said

    monkeypatch.setattr(signatures, "verify", verify)
    with pytest.raises(LocalError, match=r"report\.json is not the file that was signed"):
        sealing.read_sealed(signed.directory, report_key)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_report_that_was_not_signed_is_none(signed: Report, report_key: Path) -> None:
    """The signature covers a list of files: what is not on it has not been signed, whatever it is called."""
    assert signed.directory is not None
    kept = (signed.directory / "report.json").read_bytes()
    (signed.directory / "report.json").unlink()
    sealing.seal(signed.directory, report_key)
    (signed.directory / "report.json").write_bytes(kept)
    with pytest.raises(LocalError, match="is not among the files that were signed"):
        sealing.read_sealed(signed.directory, report_key)


def test_a_pipe_in_a_report_is_not_waited_for(signed: Report, report_key: Path) -> None:
    assert signed.directory is not None
    (signed.directory / "report.html").unlink()
    os.mkfifo(signed.directory / "report.html")
    with pytest.raises(LocalError, match=r"report\.html is not the file that was signed"):
        sealing.read_sealed(signed.directory, report_key)


def test_only_trusted_keys_count(
    signed: Report, report_key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another computer takes the report once our public key is in its list, and only for reports."""
    other = ensure_key(tmp_path / "other" / "key", "rtinfra-report", Reporter())
    assert signed.directory is not None
    with pytest.raises(LocalError, match="a key that is not trusted here"):
        sealing.read_sealed(signed.directory, other)
    signers = tmp_path / "report_signers"
    monkeypatch.setattr(sealing, "SIGNERS", signers)
    signers.write_text(f'control-machine namespaces="rtinfra-report" {public(report_key).read_text()}')
    assert sealing.read_sealed(signed.directory, other).results == signed.results
    signers.write_text(f'control-machine namespaces="something-else" {public(report_key).read_text()}')
    with pytest.raises(LocalError):
        sealing.read_sealed(signed.directory, other)


def test_a_key_that_cannot_be_made_is_an_error_before_anything_is_done(
    inventory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(sealing.KEY_VARIABLE, str(tmp_path / "file" / "key"))
    with pytest.raises(VerifyError, match=r"the key that signs reports, .* cannot be made"):
        run(inventory, output=tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = ensure_key(tmp_path / "key", "test", Reporter())
    key.chmod(0o644)
    with pytest.raises(LocalError, match="can be read by others"):
        ensure_key(key, "test", Reporter())


# ---- metrics


def test_metrics_are_valid_and_say_what_the_report_says() -> None:
    made = report(
        result("RT-1.1"),
        result("RT-1.2", Status.FAIL),
        result("RT-1.3", Status.WAIVED),
        result("RT-1.1", Status.NOT_APPLICABLE, host='odd"name'),
        problems=(HostProblem("far", "no answer"),),
    )
    text = textfile.text(made).decode()
    command = [tool("promtool"), "check", "metrics"]
    checked = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    told = {
        (sample.name.removeprefix("rtinfra_compliance_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    # Labels in the order of their names: status, target.
    assert {status: value for (name, status, *host), value in told.items() if host == ["robot"]} == {
        "passed": 1,
        "failed": 1,
        "waived": 1,
        "not_applicable": 0,
        "measured": 0,
    }
    assert told["controls", "not_applicable", 'odd"name'] == 1
    assert told["control_state", "RT-1.2", "high", "failed", "robot"] == 1
    assert (told["unreachable", "far"], told["unreachable", "robot"]) == (1, 0)
    assert told["last_run_timestamp_seconds", "robot"] == 1769860800


def test_metrics_go_where_node_exporter_looks(
    inventory: Path, suite: Path, fake_ssh: Path, tmp_path: Path, in_process: None
) -> None:
    with pytest.raises(VerifyError, match="there is no folder"):
        run(inventory, tests=suite, output=tmp_path / "reports", textfiles=tmp_path / "absent")
    place = tmp_path / "textfiles"
    place.mkdir()
    report = run(inventory, tests=suite, output=tmp_path / "reports", textfiles=place)
    assert report.directory is not None
    assert (place / textfile.FILE).read_bytes() == (report.directory / textfile.FILE).read_bytes()


# ---- the page


@pytest.mark.parametrize(
    ("made", "colour", "words"),
    [
        (report(result()), "green", "All is well"),
        (report(result(), result("RT-1.2", Status.WAIVED)), "yellow", "Well, with exceptions"),
        (report(replace(result(status=Status.FAIL), severity="low")), "yellow", "Nearly well"),
        (report(result(status=Status.FAIL)), "red", "Action is needed"),
        (report(result(), problems=(HostProblem("far", "no answer"),)), "red", "Not everything could be looked at"),
        (report(), "red", "Nothing is proven"),
    ],
)
def test_the_traffic_light(made: Report, colour: str, words: str) -> None:
    found = page.light(made)
    assert (found.colour, found.words) == (colour, words)
    assert words in page.render(made).decode()


def test_what_hosts_say_is_text_and_nothing_else() -> None:
    evil = "<script>alert(1)</script><img src=http://192.0.2.9/x>"
    made = report(
        result("RT-1.1", Status.FAIL, expected=evil, actual=evil, note=evil, why=f"`{evil}`"),
        problems=(HostProblem(evil, evil),),
        notes=(evil,),
    )
    text = page.render(made).decode()
    assert "<script" not in text and "<img" not in text
    assert text.count("&lt;script&gt;") >= 6


def test_the_page_asks_nobody_for_anything() -> None:
    text = page.render(report(result(status=Status.FAIL, why="A.", fix="Type `x`."))).decode()
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert not re.findall(r"""(?:src|href|action|poster|srcset)\s*=\s*(?!["']?data:,)""", text)
    assert not re.findall(r"@import|url\(|//[a-z0-9]", text)
    assert "<script" not in text
    assert "Type <code>x</code>." in text


# ---- comparison

STATES = st.sampled_from([*Status, None])


def pair(before: Status | None, after: Status | None) -> tuple[Report, Report]:
    def one(status: Status | None) -> Report:
        return report(result("RT-9.9"), *([result(status=status, actual="0-3")] if status else []))

    return one(before), one(after)


@pytest.mark.parametrize(
    ("before", "after", "group", "code"),
    [
        (Status.PASS, Status.FAIL, "worse", 1),
        (Status.PASS, Status.WAIVED, "worse", 1),
        (Status.WAIVED, Status.FAIL, "worse", 1),
        (Status.FAIL, Status.WAIVED, "better", 0),
        (Status.FAIL, Status.PASS, "better", 0),
        (Status.PASS, Status.NOT_APPLICABLE, "judged", 0),
        (None, Status.PASS, "added", 0),
        (None, Status.FAIL, "added", 1),
        (Status.FAIL, None, "gone", 0),
    ],
)
def test_every_kind_of_change(before: Status | None, after: Status | None, group: str, code: int) -> None:
    found = compare(*pair(before, after))
    groups = {name: getattr(found, name) for name in ("better", "worse", "judged", "added", "gone")}
    assert {name for name, changes in groups.items() if changes} == {group}
    assert found.exit_code == code


@given(before=STATES, after=STATES)
def test_a_comparison_read_backwards_is_its_opposite(before: Status | None, after: Status | None) -> None:
    old, new = pair(before, after)
    there, back = compare(old, new), compare(new, old)
    assert len(there.better) == len(back.worse)
    assert len(there.added) == len(back.gone)
    assert compare(old, old).exit_code == 0


def test_a_host_that_went_silent_is_worse_and_other_settings_are_told() -> None:
    old = report(result())
    new = replace(
        old,
        problems=(HostProblem("far", "no answer"),),
        hosts={"robot": replace(old.hosts["robot"], config_sha256="cd")},
    )
    found = compare(old, new)
    assert (found.exit_code, found.silent, found.settings) == (1, ("far",), ("robot",))
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(rendered(found))
    text = console.export_text()
    assert "far could be looked at before" in text
    assert "settings of robot are others" in text


@pytest.fixture
def command() -> Typer:
    app = Typer()
    app.command()(cli.verify)
    return app


def stored(directory: Path, key: Path, *results: ControlResult) -> Path:
    directory.mkdir(parents=True)
    report(*results).write(directory / "report.json")
    sealing.seal(directory, key)
    return directory


def test_the_command_compares(command: Typer, tmp_path: Path, report_key: Path) -> None:
    sealing.signing_key()
    old = stored(tmp_path / "old", report_key, result("RT-1.1"), result("RT-1.2", Status.FAIL))
    new = stored(tmp_path / "new", report_key, result("RT-1.1", Status.FAIL, actual="1"), result("RT-1.2"))
    ran = CliRunner().invoke(command, ["--compare", str(old), str(new)])
    assert ran.exit_code == 1, ran.output
    assert "RT-1.1 on robot: PASS -> FAIL: Title of RT-1.1. Found: 1" in ran.output
    assert "Worse than before: 1 better, 1 worse, 0 new, 0 gone" in ran.output
    # By the name of a folder among the reports, as JSON.
    ran = CliRunner().invoke(command, ["--compare", "new", "old", "--output", str(tmp_path), "--json"])
    document = json.loads(ran.stdout)
    assert [change["control"] for change in document["better"]] == ["RT-1.1"]
    ran = CliRunner().invoke(command, ["--compare", str(old), str(old)])
    assert ran.exit_code == 0


def test_the_command_refuses_what_is_no_evidence(command: Typer, tmp_path: Path, report_key: Path) -> None:
    sealing.signing_key()
    old = stored(tmp_path / "old", report_key, result())
    (old / "report.json").write_text((old / "report.json").read_text().replace("PASS", "FAIL"))
    ran = CliRunner().invoke(command, ["--compare", str(old), str(tmp_path / "absent")])
    assert ran.exit_code == 2
    assert "is not the file that was signed" in ran.output.replace("\n", " ")
    assert "Next step" in ran.output
