"""Secrets in one file encrypted with age (https://age-encryption.org), which may be kept in any repository.

Inside is YAML, one `name: value` a secret. It is decrypted in memory by Debian's program `age`, with an identity file
that only its owner can read.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from pydantic import SecretStr

from rtinfra.local import programs
from rtinfra.local.programs import Tool
from rtinfra.local.progress import Reporter
from rtinfra.secrets.errors import SecretError
from rtinfra.secrets.local import read_private

_AGE = Tool("age", "age")
_SECONDS = 60


@dataclass(frozen=True)
class AgeSecrets:
    """The secrets of an encrypted file."""

    file: Path
    identity: Path

    def find(self, name: str) -> SecretStr | None:
        """Return a secret; None when the file has none of that name. Raises SecretError."""
        return self._secrets.get(name)

    def where(self, name: str) -> str:
        """Say where a secret would be looked for."""
        return f"or as `{name}:` into {self.file}"

    @cached_property
    def _secrets(self) -> dict[str, SecretStr]:
        try:
            read_private(self.identity)
        except FileNotFoundError:
            raise SecretError(
                f"{self.identity}, which decrypts {self.file.name}, is not there",
                "bring it from where it is kept, or correct age.identity in secrets.yaml",
            ) from None
        programs.ensure([_AGE], Reporter())
        # The identity goes by its path and the result by a pipe: neither is an argument or a file.
        answer = subprocess.run(
            ["age", "--decrypt", "--identity", str(self.identity), str(self.file)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        if answer.returncode != 0:
            said = (answer.stderr.decode(errors="replace").splitlines() or ["no reason given"])[0]
            raise SecretError(
                f"{self.file} cannot be decrypted with {self.identity} ({said})",
                "encrypt it for the public key of this identity: age-keygen -y shows it",
            )
        return _parsed(answer.stdout, self.file)


def _parsed(content: bytes, file: Path) -> dict[str, SecretStr]:
    try:
        document = yaml.safe_load(content)
    except yaml.YAMLError:
        # Not the parser's words: they quote the text.
        document = None
    texts = isinstance(document, dict) and all(
        isinstance(name, str) and isinstance(value, str) and value for name, value in document.items()
    )
    if not texts:
        raise SecretError(
            f"{file} is not a list of `name: value`, or has an empty value or one that is no text",
            'decrypt it, correct it (numbers in quotes: "1234"), encrypt it again',
        )
    return {name: SecretStr(value.rstrip("\n")) for name, value in document.items()}
