"""Secrets: where they come from, and that none is taken from a file others can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtinfra.secrets import LocalSecrets, SecretError


def write(path: Path, content: str, mode: int = 0o600) -> None:
    path.write_text(content)
    path.chmod(mode)


def test_a_file_without_its_line_break(tmp_path: Path) -> None:
    write(tmp_path / "token", "abc\n")
    assert LocalSecrets(tmp_path, {}).read("token") == b"abc"


def test_the_environment_comes_first(tmp_path: Path) -> None:
    write(tmp_path / "bot-token", "file")
    environment = {"RTINFRA_SECRET_BOT_TOKEN": "environment"}
    assert LocalSecrets(tmp_path, environment).read("bot-token") == b"environment"


def test_what_is_missing_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"RTINFRA_SECRET_TOKEN") as error:
        LocalSecrets(tmp_path, {}).read("token")
    assert str(tmp_path / "token") in str(error.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_can_read_is_refused_without_its_value(tmp_path: Path, mode: int) -> None:
    write(tmp_path / "token", "hunter2", mode)
    with pytest.raises(SecretError, match="chmod 600") as error:
        LocalSecrets(tmp_path, {}).read("token")
    assert "hunter2" not in str(error.value)


def test_an_empty_file_is_no_secret(tmp_path: Path) -> None:
    write(tmp_path / "token", "\n")
    with pytest.raises(SecretError, match="empty"):
        LocalSecrets(tmp_path, {}).read("token")


def test_nothing_shows_a_value() -> None:
    assert "hunter2" not in repr(LocalSecrets(environment={"RTINFRA_SECRET_A": "hunter2"}))
