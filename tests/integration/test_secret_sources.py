"""Secrets from an encrypted file and from a manager, with the real `age` and a server that speaks Infisical's API."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from rtinfra.local import programs
from rtinfra.local.programs import Tool
from rtinfra.local.progress import ConsoleReporter
from rtinfra.secrets import SecretError, operator_secrets
from rtinfra.secrets.age import AgeSecrets
from rtinfra.secrets.infisical import InfisicalSecrets
from tests.integration.http_services import SecretManager, serving
from tests.integration.servers import free_port

VALUE = "planted-age-value-9f2"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two identities."""
    programs.ensure([Tool("age", "age")], ConsoleReporter())
    directory = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        subprocess.run(["age-keygen", "-o", str(directory / name)], check=True, capture_output=True)
    return directory


def encrypted(keys: Path, text: str, path: Path, recipient: str = "mine") -> Path:
    public = subprocess.run(["age-keygen", "-y", str(keys / recipient)], check=True, capture_output=True, text=True)
    subprocess.run(["age", "-r", public.stdout.strip(), "-o", str(path)], input=text.encode(), check=True)
    return path


def test_an_encrypted_file(keys: Path, tmp_path: Path) -> None:
    file = encrypted(keys, f'slack_webhook: {VALUE}\npin: "0042"\n', tmp_path / "secrets.age")
    secrets = AgeSecrets(file, keys / "mine")
    found = secrets.find("slack_webhook")
    assert isinstance(found, SecretStr) and found.get_secret_value() == VALUE
    assert secrets.find("unknown") is None
    assert VALUE not in repr(secrets) + repr(vars(secrets)) + str(found)
    assert VALUE.encode() not in file.read_bytes()


def test_an_identity_that_others_can_read_is_refused(keys: Path, tmp_path: Path) -> None:
    file = encrypted(keys, f"a: {VALUE}\n", tmp_path / "secrets.age")
    open_identity = tmp_path / "identity"
    open_identity.write_bytes((keys / "mine").read_bytes())
    open_identity.chmod(0o644)
    with pytest.raises(SecretError, match=r"can be read by others.*chmod 600"):
        AgeSecrets(file, open_identity).find("a")


def test_the_wrong_identity_and_a_missing_one(keys: Path, tmp_path: Path) -> None:
    file = encrypted(keys, f"a: {VALUE}\n", tmp_path / "secrets.age", recipient="other")
    with pytest.raises(SecretError, match=r"cannot be decrypted .*age-keygen -y") as error:
        AgeSecrets(file, keys / "mine").find("a")
    assert VALUE not in str(error.value)
    with pytest.raises(SecretError, match="is not there"):
        AgeSecrets(file, tmp_path / "none").find("a")


@pytest.mark.parametrize("text", [f"{VALUE}", f"- {VALUE}\n", f"a: [{VALUE}\n", f"a: {{b: {VALUE}}}\n", "a: 1\n"])
def test_a_content_that_is_no_list_of_secrets_is_refused_without_showing_it(
    keys: Path, tmp_path: Path, text: str
) -> None:
    with pytest.raises(SecretError, match="is not a list of") as error:
        AgeSecrets(encrypted(keys, text, tmp_path / "secrets.age"), keys / "mine").find("a")
    assert VALUE not in str(error.value)
    assert error.value.__cause__ is None


@pytest.fixture
def manager() -> Iterator[SecretManager]:
    served = SecretManager("planted-id", "planted-client-secret", {"SLACK_WEBHOOK": "planted-managed-value", "B": "2"})
    with serving(served) as running:
        yield running


def client(manager: SecretManager, **changes: str) -> InfisicalSecrets:
    values = {
        "url": manager.url,
        "project": manager.project,
        "environment": manager.environment,
        "path": manager.path,
        "client_id": manager.client_id,
        "client_secret": manager.client_secret,
    } | changes
    return InfisicalSecrets(
        **{name: SecretStr(value) if name.startswith("client_") else value for name, value in values.items()}  # type: ignore[arg-type]
    )


def test_a_manager(manager: SecretManager) -> None:
    secrets = client(manager)
    found = secrets.find("slack-webhook")
    assert found is not None and found.get_secret_value() == "planted-managed-value"
    assert secrets.find("unknown") is None
    assert secrets.names() == ("B", "SLACK_WEBHOOK")
    secrets.find("slack-webhook")
    # One login, one question for each secret, one for the names.
    assert [request.method for request in manager.requests] == ["POST", "GET", "GET", "GET"]
    shown = repr(secrets)
    for secret in ("planted-client-secret", "planted-managed-value", manager.token, "planted-id"):
        assert secret not in shown


def test_another_path_has_other_secrets(manager: SecretManager) -> None:
    secrets = client(manager, path="/elsewhere")
    assert secrets.find("slack_webhook") is None
    assert "which has nothing" in secrets.where("slack_webhook")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"client_secret": "planted-wrong"}, "answered 401.*client id and the client secret"),
        ({"project": "other"}, "answered 403.*the right to read"),
    ],
)
def test_what_a_manager_refuses(manager: SecretManager, changes: dict[str, str], told: str) -> None:
    with pytest.raises(SecretError, match=told) as error:
        client(manager, **changes).find("slack_webhook")
    assert "planted" not in str(error.value)


def test_a_manager_that_is_away(manager: SecretManager) -> None:
    with pytest.raises(SecretError, match="cannot be reached"):
        client(manager, url=f"http://127.0.0.1:{free_port()}").find("slack_webhook")


def test_all_places_one_after_the_other(keys: Path, manager: SecretManager, tmp_path: Path) -> None:
    """A file first, then age, then the manager, whose own credentials are in the two others."""
    encrypted(keys, f"from_age: {VALUE}\nclient_secret: planted-client-secret\n", tmp_path / "secrets.age")
    directory = tmp_path / "secrets"
    directory.mkdir()
    for name, value in {"from_file": "planted-file-value", "client_id": "planted-id"}.items():
        (directory / name).write_text(value)
        (directory / name).chmod(0o600)
    sources = {
        "age": {"file": "secrets.age", "identity": str(keys / "mine")},
        "infisical": {
            "url": manager.url,
            "project": manager.project,
            "environment": manager.environment,
            "path": manager.path,
            "client_id_secret": "client_id",
            "client_secret_secret": "client_secret",
            "ca_file": None,
        },
    }
    (tmp_path / "secrets.yaml").write_text(json.dumps(sources))
    secrets = operator_secrets(project=tmp_path)
    assert secrets.read("from_file") == b"planted-file-value"
    assert secrets.read("from_age") == VALUE.encode()
    assert secrets.read("slack_webhook") == b"planted-managed-value"
    with pytest.raises(SecretError) as error:
        secrets.get("nowhere")
    for part in ("RTINFRA_SECRET_NOWHERE", "secrets.age", manager.url, "SLACK_WEBHOOK"):
        assert part in str(error.value)
    assert "planted" not in str(error.value).replace("planted-id", "")


def test_the_managers_environment_follows_the_hosts(keys: Path, manager: SecretManager, tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    directory.mkdir()
    for name, value in {"client_secret": "planted-client-secret", "client_id": "planted-id"}.items():
        (directory / name).write_text(value)
        (directory / name).chmod(0o600)
    place = {"url": manager.url, "project": manager.project, "environment": None, "path": manager.path, "ca_file": None}
    login = {"client_id_secret": "client_id", "client_secret_secret": "client_secret"}
    (tmp_path / "secrets.yaml").write_text(json.dumps({"age": None, "infisical": place | login}))
    found = operator_secrets(manager.environment, project=tmp_path)
    assert found.read("slack_webhook") == b"planted-managed-value"
    with pytest.raises(SecretError, match=r"another-environment"):
        operator_secrets("another-environment", project=tmp_path).get("slack_webhook")
    # What is for no host, in none of them.
    with pytest.raises(SecretError, match=r"depends on a host.*set infisical\.environment"):
        operator_secrets(project=tmp_path).get("slack_webhook")


def test_a_wrong_list_of_places_is_named(tmp_path: Path) -> None:
    (tmp_path / "secrets.yaml").write_text("age: {file: x}\ninfisical: null\n")
    with pytest.raises(SecretError, match=r"secrets\.yaml is wrong: .*age\.identity.*secrets\.example\.yaml"):
        operator_secrets(project=tmp_path)
