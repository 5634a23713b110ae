"""Secrets of a self-hosted manager with Infisical's API.

A machine identity (Universal Auth) logs in with its client id and client secret and gets a token for some minutes.
https://infisical.com/docs/api-reference: POST /api/v1/auth/universal-auth/login, GET /api/v3/secrets/raw.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from rtinfra.secrets.errors import SecretError

if TYPE_CHECKING:
    import httpx

_SECONDS = 10.0
_NOT_FOUND = 404


@dataclass(frozen=True)
class InfisicalSecrets:
    """The secrets of one path of one environment of a project.

    A secret `slack_webhook` is called SLACK_WEBHOOK there.
    """

    url: str
    project: str
    environment: str
    path: str
    client_id: SecretStr = field(repr=False)
    client_secret: SecretStr = field(repr=False)
    ca_file: str | None = None
    _found: dict[str, SecretStr | None] = field(default_factory=dict, repr=False, compare=False)

    def find(self, name: str) -> SecretStr | None:
        """Return a secret; None when the path has none of that name. Asked once a process. Raises SecretError."""
        if name not in self._found:
            self._found[name] = self._fetched(name)
        return self._found[name]

    def _fetched(self, name: str) -> SecretStr | None:
        answer = self._ask("GET", f"/api/v3/secrets/raw/{key_of(name)}", params=self._place, headers=self._login)
        if answer.status_code == _NOT_FOUND:
            return None
        value = _value(self._document(answer), "secret", "secretValue")
        if not value:
            raise SecretError(f"{key_of(name)} is empty in {self.url}{self.path}", "give it a value there")
        return SecretStr(value.rstrip("\n"))

    def names(self) -> tuple[str, ...]:
        """Return the names of all secrets of the path, as they are called there. Raises SecretError."""
        place = {**self._place, "viewSecretValue": "false"}
        document = self._document(self._ask("GET", "/api/v3/secrets/raw", params=place, headers=self._login))
        return tuple(sorted(str(secret["secretKey"]) for secret in document.get("secrets", ())))

    def where(self, name: str) -> str:
        """Say where a secret would be looked for, and what is there instead."""
        there = ", ".join(self.names()) or "nothing"
        return f"or as {key_of(name)} into {self.path} of {self.environment} at {self.url}, which has {there}"

    @property
    def _place(self) -> dict[str, str]:
        return {"workspaceId": self.project, "environment": self.environment, "secretPath": self.path}

    @cached_property
    def _login(self) -> dict[str, str]:
        """Headers with a token: one login a process."""
        document = self._document(
            self._ask(
                "POST",
                "/api/v1/auth/universal-auth/login",
                json={
                    "clientId": self.client_id.get_secret_value(),
                    "clientSecret": self.client_secret.get_secret_value(),
                },
            )
        )
        return {"Authorization": f"Bearer {_value(document, 'accessToken')}"}

    @cached_property
    def _client(self) -> httpx.Client:
        import ssl

        import httpx

        verify = ssl.create_default_context(cafile=self.ca_file) if self.url.startswith("https:") else False
        return httpx.Client(base_url=self.url, timeout=_SECONDS, verify=verify, trust_env=False)

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        import httpx

        try:
            return self._client.request(method, path, **request)
        except (httpx.HTTPError, OSError) as error:
            raise SecretError(
                f"the secret manager at {self.url} cannot be reached ({type(error).__name__})",
                "see whether it runs; infisical.url in secrets.yaml is its address",
            ) from None

    def _document(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.is_success:
            try:
                document = answer.json()
            except ValueError:
                document = None
            if isinstance(document, dict):
                return document
        # Its own words are not shown: they might repeat what was sent.
        raise SecretError(
            f"the secret manager at {self.url} answered {answer.status_code} to {answer.request.url.path}",
            {
                401: "correct the client id and the client secret of the machine identity",
                403: "give the machine identity the right to read this path",
            }.get(answer.status_code, "correct infisical in secrets.yaml; look into the manager's log"),
        )


def key_of(name: str) -> str:
    """Return what a secret is called at the manager."""
    return name.upper().replace("-", "_")


def _value(document: dict[str, Any], *keys: str) -> str:
    found: Any = document
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, str):
        raise SecretError(
            f"the secret manager's answer has no {'.'.join(keys)}", "its version does not speak the API that is known"
        )
    return found
