"""All places in which secrets of this computer may be, one after the other."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from rtinfra.paths import PROJECT
from rtinfra.secrets.errors import SecretError
from rtinfra.secrets.local import LocalSecrets

_LOG: Final = logging.getLogger(__name__)


class Provider(Protocol):
    """One place with secrets."""

    def find(self, name: str) -> SecretStr | None:
        """Return a secret; None when it is not there. Raises SecretError when that cannot be told."""
        ...

    def where(self, name: str) -> str:
        """Say where a secret would be looked for, as part of a sentence."""
        ...


class Secrets:
    """Several places; the first that has a secret wins."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = tuple(providers)

    def get(self, name: str) -> SecretStr:
        """Return a secret.

        Raises:
            SecretError: it is nowhere; the text names every place. Or a place cannot be asked.
        """
        for provider in self._providers:
            if (value := provider.find(name)) is not None:
                return value
        places = ", ".join(provider.where(name) for provider in self._providers)
        raise SecretError(f"the secret {name} is not defined", places)

    def read(self, name: str) -> bytes:
        """Return the value of a secret for a file that is about to be written; raises SecretError."""
        return self.get(name).get_secret_value().encode()


class _OfNoHost:
    """A manager whose environment is that of the host which a secret is for, where there is none."""

    def __init__(self, settings: Path) -> None:
        self._settings = settings

    def find(self, name: str) -> SecretStr | None:
        raise SecretError(
            f"the secret {name} may be in the secret manager, but in which of its environments depends on a host",
            f"set infisical.environment in {self._settings}, or {self.where(name)}",
        )

    def where(self, name: str) -> str:
        return f"keep {name} on this computer"


@cache
def operator_secrets(environment: str | None = None, project: Path = PROJECT) -> Secrets:
    """Return the secrets of this computer, as secrets.yaml of the project folder says; without it, the local ones.

    `environment` is the `telemetry.environment` of the host that they are for, None where they are for no host: a
    secret manager may have others for each.

    Raises:
        SecretError: secrets.yaml is wrong, or a credential that it names is missing.
    """
    local = LocalSecrets(project / "secrets")
    path = project / "secrets.yaml"
    if not path.exists():
        return Secrets([local])
    return _configured(path, local, environment)


def _configured(path: Path, local: LocalSecrets, environment: str | None) -> Secrets:
    # Only who has such a file pays for the parser and the providers.
    import yaml

    from rtinfra.config.explain import explain
    from rtinfra.secrets.age import AgeSecrets
    from rtinfra.secrets.infisical import InfisicalSecrets
    from rtinfra.secrets.settings import SecretSources

    reasons = ""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        sources = SecretSources.model_validate(document)
    except yaml.YAMLError as error:
        # Not the parser's words: they quote the line, and somebody may have written a secret there.
        mark = getattr(error, "problem_mark", None)
        reasons = f"line {mark.line + 1} is no valid YAML" if mark else "it is no valid YAML"
    except UnicodeDecodeError:
        reasons = "it is not UTF-8"
    except ValidationError as error:
        reasons = "; ".join(f"{found.key} {found.reason}" for found in explain(error, SecretSources, document, ""))
    if reasons:
        raise SecretError(f"{path} is wrong: {reasons}", "compare it with secrets.example.yaml")
    providers: list[Provider] = [local]
    root = path.parent
    if (age := sources.age) is not None:
        providers.append(AgeSecrets(root / age.file.expanduser(), root / age.identity.expanduser()))
    if (manager := sources.infisical) is not None:
        slug = manager.environment or environment
        if slug is None:
            return Secrets([*providers, _OfNoHost(path)])
        if manager.url.startswith("http:") and not _is_loopback(manager.url):
            _LOG.warning(
                "the secret manager at %s is asked in plain text: whoever is on the way reads every secret. Give it a "
                "certificate, and write https:// and ca_file into secrets.yaml",
                manager.url,
            )
        bootstrap = Secrets(providers)
        providers.append(
            InfisicalSecrets(
                url=manager.url,
                project=manager.project,
                environment=slug,
                path=manager.path,
                client_id=bootstrap.get(manager.client_id_secret),
                client_secret=bootstrap.get(manager.client_secret_secret),
                ca_file=str(root / manager.ca_file.expanduser()) if manager.ca_file else None,
            )
        )
    return Secrets(providers)


def _is_loopback(url: str) -> bool:
    name = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
