"""Becoming root: what a login shell is given, what sudo's habits make of it, and what is said when sudo refuses."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtinfra import sudo

PASSWORD = "correct horse"
#: As sudo: options of ours, one password line read byte by byte from standard input, a PATH and folder of its own.
SUDO = r"""#!/bin/sh
log=$STAND_IN/log
echo "$*" >>"$log"
validate= ask=yes
while :; do case $1 in
    -n) ask=; shift ;; -S) shift ;; -p) shift 2 ;; -H) shift ;; -v) validate=yes; shift ;;
    --) shift; break ;; *) break ;;
esac; done
if [ -e "$STAND_IN/tty" ]; then echo 'sudo: sorry, you must have a tty to run sudo' >&2; exit 1; fi
if [ -e "$STAND_IN/wants" ]; then
    if [ -z "$ask" ]; then echo 'sudo: a password is required' >&2; exit 1; fi
    tries=0
    while :; do
        IFS= read -r line || { echo 'sudo: no password was provided' >&2
            [ "$tries" = 0 ] || echo "sudo: $tries incorrect password attempt" >&2; exit 1; }
        [ "$line" = "$(cat "$STAND_IN/wants")" ] && break
        tries=$((tries + 1)); echo wrong >>"$STAND_IN/attempts"
        [ "$tries" -lt 3 ] || { echo 'sudo: 3 incorrect password attempts' >&2; exit 1; }
    done
fi
[ -z "$validate" ] || exit 0
umask 077
unset SSH_CONNECTION
PATH=$STAND_IN:/usr/bin:/bin exec "$@"
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder with a sudo that wants what the file `wants` holds; it notes its arguments in `log`."""
    program = tmp_path / "sudo"
    program.write_text(SUDO)
    program.chmod(0o755)
    return tmp_path


def run(
    host: Path, script: str, stdin: bytes = b"", password: str | None = None, tried: bool = False, shell: str = "sh"
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [shell, "-c", sudo.command(password is not None, tried)],
        input=sudo.head(script, password).encode() + stdin,
        capture_output=True,
        cwd=host,
        env={"PATH": f"{host}:/usr/bin:/bin", "STAND_IN": str(host), "SSH_CONNECTION": "192.0.2.9 1 192.0.2.1 22"},
        check=False,
    )


@pytest.mark.parametrize("tried", (False, True))
@pytest.mark.parametrize("wants", (None, PASSWORD))
def test_the_rest_of_standard_input_is_the_scripts_own(host: Path, wants: str | None, tried: bool) -> None:
    """Also where a password is sent that nobody asks for."""
    if wants is not None:
        (host / "wants").write_text(wants)
    payload = bytes(range(256)) * 1000
    ended = run(host, "cat; exit 7", payload, PASSWORD, tried)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, payload, b"")
    assert not (host / "attempts").exists()


def test_neither_script_nor_password_is_in_any_argument(host: Path) -> None:
    (host / "wants").write_text(PASSWORD)
    for tried in (False, True):
        assert run(host, "echo a-secret-word", password=PASSWORD, tried=tried).returncode == 0
    log = (host / "log").read_text()
    assert "secret-word" not in log and PASSWORD not in log


def test_root_finds_what_a_login_of_root_has(host: Path) -> None:
    """A secure_path without sbin, a umask of 077, a folder that root may not read, a way in that sudo forgets."""
    ended = run(host, 'umask; echo "$PATH"; pwd; echo "$SSH_CONNECTION"; echo "${LC_ALL-none}"; echo "$#"')
    assert ended.stdout.decode().split("\n") == [
        "0022",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "/",
        "192.0.2.9 1 192.0.2.1 22",
        "none",
        "0",
        "",
    ]


def test_a_wrong_password_is_one_attempt(host: Path) -> None:
    """pam_faillock locks an account after three."""
    (host / "wants").write_text("another")
    ended = run(host, "echo ran", b"line\n" * 5, PASSWORD)
    assert ended.stdout == b"" and ended.returncode != 0
    assert (host / "attempts").read_text().count("wrong") == 1
    refusal = sudo.refusal("pilot", ended.stderr.decode())
    assert refusal is not None and "does not take the password of pilot" in refusal.reason


def test_nothing_is_run_when_the_script_never_comes(host: Path) -> None:
    ended = subprocess.run(
        ["sh", "-c", sudo.command()],
        input=b"",
        env={"PATH": f"{host}:/usr/bin:/bin", "STAND_IN": str(host)},
        check=False,
    )
    assert ended.returncode == 90


@pytest.mark.parametrize("shell", ("sh", "bash", "zsh", "fish", "tcsh"))
def test_login_shells(host: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        shell = "sh"
    script = "printf '%s\\n' 'a\\\\b' \"it's\" '!x' '$HOME'"
    assert run(host, script, shell=shell).stdout == b"a\\\\b\nit's\n!x\n$HOME\n"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=200))
def test_any_script_arrives(text: str) -> None:
    line = sudo.head(f"x{text}").removeprefix(sudo.MARKER)
    assert line.count("\n") == 1
    assert base64.b64decode(line, validate=False).decode() == f"x{text}"


@pytest.mark.parametrize("password", ("two\nlines", f"{sudo.MARKER}x"))
def test_a_password_that_would_be_taken_for_a_script_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        sudo.head("true", password)


@pytest.mark.parametrize(
    ("said", "reason", "step"),
    (
        ("sudo: a password is required\n", "asks pilot for a password", "NOPASSWD"),
        ("sudo-rs: interactive authentication is required", "asks pilot for a password", "become_password"),
        ("pilot is not in the sudoers file.\n", "does not let pilot", "/etc/sudoers.d/pilot"),
        ("Sorry, user pilot may not run sudo on robot-1.\n", "does not let pilot", "/etc/sudoers.d/pilot"),
        ("sudo: sorry, you must have a tty to run sudo\n", "without a terminal", "!requiretty"),
        ("Sorry, user pilot is not allowed to execute '/bin/sh' as root on r.", "some commands only", "NOPASSWD: ALL"),
        ("env: 'sudo': No such file or directory\n", "has no sudo", "apt-get install sudo"),
        ("/etc/sudoers.d/x:1:9: syntax error\n", "its own settings", "visudo -c"),
        ("sudo: Account or password is expired, reset your password", "expired", "chage -l pilot"),
    ),
)
def test_a_refusal_names_the_reason_and_the_command_that_mends_it(said: str, reason: str, step: str) -> None:
    refusal = sudo.refusal("pilot", f"sudo: unable to resolve host robot-1\n{said}")
    assert refusal is not None
    assert reason in refusal.reason and step in refusal.next_step


@pytest.mark.parametrize("said", ("", "sudo: unable to resolve host robot-1: Name or service not known", "E: failed"))
def test_other_failures_are_not_sudos(said: str) -> None:
    assert sudo.refusal("pilot", said) is None
