"""A password that somebody pasted where none belongs is refused, and never shown by the refusal."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from roles.preflight.model import PreflightSettings
from rtinfra.config.explain import explain
from rtinfra.config.problems import ABSENT, ConfigError, Problem
from rtinfra.config.types import Url
from rtinfra.config.yaml import parse_yaml
from rtinfra.notify.settings import Conninfo
from rtinfra.preflight.settings import RedisSettings
from rtinfra.secrets import SecretError, operator_secrets
from tests.unit.telemetry_site import shipped

WORD = "hunter2"


def told(model: type[BaseModel], data: Mapping[str, Any]) -> str:
    """All that a refusal shows anywhere: text, JSON, repr."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    problems = [
        Problem("f.yaml", 1, one.key, one.value, one.reason, one.suggestion)
        for one in explain(caught.value, model, data)
    ]
    shown = [str(ConfigError(problems)), repr(problems), json.dumps([one.to_json() for one in problems])]
    return "\n".join(shown)


@pytest.mark.parametrize(
    "checks",
    [
        {"redis": {"url": f"redis://:{WORD}@127.0.0.1", "slow": "1s"}},
        {"redis": {"url": f"redis://127.0.0.1/0?password={WORD}", "slow": "1s"}},
        {"redis": {"url": f"rediss://127.0.0.1/0?ssl_password={WORD}", "slow": "1s"}},
        {"redis": f"redis://:{WORD}@127.0.0.1"},
        {"redis": [f"redis://:{WORD}@127.0.0.1"]},
        {"redis": {"host": f"redis://:{WORD}@127.0.0.1", "slow": "1s"}},
        {"redis": {f"redis://:{WORD}@127.0.0.1": None}},
        {"redis": {"url": "redis://127.0.0.1", "slow": f"redis://:{WORD}@127.0.0.1"}},
        {"postgres": {"conninfo": f"host=x password={WORD}", "slow": "1s"}},
        {"postgres": {"conninfo": f"host=x PASSWORD = {WORD}", "slow": "1s"}},
        {"postgres": {"conninfo": f"host=x sslpassword={WORD}", "slow": "1s"}},
        {"postgres": {"conninfo": f"host=x {WORD}", "slow": "1s"}},
        {"postgres": {"conninfo": f"postgresql://a:{WORD}@c/d", "slow": "1s"}},
        {"postgres": f"postgresql://a:{WORD}@c/d"},
        {"apis": [{"name": "a", "url": f"http://u:{WORD}@h/", "slow": "1s"}]},
        {"apis": [{"name": "a", "url": f"http://h/?api_key={WORD}", "slow": "1s"}]},
        {"apis": [f"http://u:{WORD}@h/"]},
        {"application": {"url": f"http://u:{WORD}@h/"}},
        {"application": {"url": [f"http://u:{WORD}@h/"]}},
    ],
)
def test_a_refusal_shows_no_password(checks: dict[str, Any]) -> None:
    shown = shipped("preflight").model_dump(mode="json")
    data = {**shown, "checks": {**shown["checks"], **checks}}
    assert WORD not in told(PreflightSettings, data)


@pytest.mark.parametrize(
    "notify",
    [
        {"slack": f"https://hooks.example/{WORD}"},
        {"slack": {"url": f"https://hooks.example/{WORD}"}},
        {"slack": {"url_secret": f"https://hooks.example/{WORD}"}},
        {"telegram": {"token_secret": f"123:{WORD}", "chat_id": 1}},
        {"telegram": {"token_secret": "a", "chat_id": 1, "api_url": f"https://u:{WORD}@api"}},
        {"record": {"conninfo": f"host=a password={WORD}"}},
        {"runbooks_url": f"http://u:{WORD}@h"},
    ],
)
def test_a_refused_channel_shows_no_credential(notify: dict[str, Any]) -> None:
    shown = shipped("preflight").model_dump(mode="json")
    assert WORD not in told(PreflightSettings, {**shown, "notify": {**shown["notify"], **notify}})


def test_an_address_is_hidden_wherever_a_message_quotes_it() -> None:
    address = f"redis://:{WORD}@h"
    one = Problem("f", 1, "a.b", address, f"{address} is wrong", f"write [{address}]")
    assert WORD not in str(one) + repr(one) + json.dumps(one.to_json())
    assert "is wrong" in str(one)


@settings(deadline=None)
@given(
    url=st.from_regex(r"https?://[a-z]{1,5}(:[0-9]{1,4})?(/[a-z]{0,5}){0,2}(\?[a-z]{1,4}=[0-9]{1,3})?", fullmatch=True)
)
def test_an_address_without_secrets_is_taken_as_it_is(url: str) -> None:
    if not any(word in url.partition("?")[2] for word in ("pass", "key=", "auth")):
        assert TypeAdapter(Url).validate_python(url) == url


@pytest.mark.parametrize("text", ["host=a", "host=a port=5432", "host = a  user='b c' dbname='d\\'e'"])
def test_a_connection_string_without_secrets_is_taken(text: str) -> None:
    assert TypeAdapter(Conninfo).validate_python(text) == text


def test_a_redis_of_a_socket_keeps_its_query() -> None:
    assert RedisSettings(url="unix:///run/redis.sock?db=1", slow="1s").url.endswith("?db=1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        f"a: *{WORD}",
        f"a: !{WORD}!x y",
        f"a: &{WORD} 1\nb: &{WORD} 2\nc: [",
        f'a: "{WORD}\\q"',
        f"a: {WORD}: b",
        f"a: [{WORD}",
        f"a: '{WORD}",
        f"%{WORD} x\n---\na: b",
        f"a: @{WORD}",
        f"? {WORD}\n",
    ],
)
def test_a_mistake_in_yaml_quotes_nothing_of_the_line(text: str) -> None:
    try:
        parse_yaml(text, "f.yaml")
    except ConfigError as error:
        assert WORD not in str(error)


@pytest.mark.parametrize(
    "text",
    [
        f"infisical:\n  url: https://a\n  client_secret: {WORD}: x",
        f"infisical: {{url: 'https://u:{WORD}@h'}}",
        f"age: *{WORD}",
        f"age: [{WORD}",
        f"- {WORD}",
        f"{WORD}",
        f"infisical: {WORD}",
    ],
)
def test_a_mistake_in_secrets_yaml_quotes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "secrets.yaml").write_text(text)
    with pytest.raises(SecretError) as caught:
        operator_secrets(project=tmp_path)
    assert WORD not in str(caught.value)
    assert "is wrong" in str(caught.value)


MANAGER = """age: null
infisical: {{url: "{url}", project: p, environment: e, path: /, ca_file: null, client_id_secret: a,
  client_secret_secret: b}}
"""


@pytest.mark.parametrize(
    ("url", "warns"),
    [("http://192.0.2.1:8080", True), ("http://127.0.0.1:8080", False), ("https://vault.example", False)],
)
def test_a_manager_that_is_asked_in_plain_text_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, url: str, warns: bool
) -> None:
    (tmp_path / "secrets").mkdir()
    for name in ("a", "b"):
        (tmp_path / "secrets" / name).write_text("x")
        (tmp_path / "secrets" / name).chmod(0o600)
    (tmp_path / "secrets.yaml").write_text(MANAGER.format(url=url))
    with caplog.at_level(logging.WARNING):
        operator_secrets(project=tmp_path)
    assert ("in plain text" in caplog.text) is warns


def test_ordinary_values_are_shown() -> None:
    assert "120" in str(Problem("f", 1, "rt_app.rt_process.priority", 120, "is wrong"))
    assert "10 ms" in str(Problem("f", 1, "slow", "10 ms", "is wrong"))
    assert "value" not in Problem("f", 1, "checks.redis.url", ABSENT, "is required").to_json()
