"""What each channel makes of a message: within the service's limit, and never without host and runbook."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from rtinfra.notify.channels import HttpChannel, OnCall, Slack, Teams, Telegram, Webhook, encoded
from rtinfra.notify.message import Notification, Priority, Problem, utf16_units
from rtinfra.notify.settings import OnCallSettings, TelegramSettings

SECRET = SecretStr("https://hooks.example/planted")
RUNBOOK = "http://alerts.example:9095/runbooks/PreflightNotReady"
CHANNELS: dict[str, HttpChannel] = {
    "telegram": Telegram(TelegramSettings(token_secret="token", chat_id=-1), SECRET),
    "slack": Slack(SECRET),
    "teams": Teams(SECRET),
    "on_call": OnCall(OnCallSettings(key_secret="key", api_url="https://on-call.example"), SECRET),
}
# Everything that others may write, halves of characters included.
TEXTS = st.text(st.characters(), max_size=60)


def notification(title: str, problems: tuple[Problem, ...]) -> Notification:
    return Notification(
        priority=Priority.P0,
        source="preflight",
        host="robot-1",
        environment="prod",
        title=title,
        problems=problems,
        runbook=RUNBOOK,
    )


def size(channel: str, document: object) -> tuple[int, int]:
    """Return how long the limited part of a document is, as its service counts, and the service's limit."""
    found = json.loads(encoded(document))
    match channel:
        case "telegram":
            return utf16_units(found["text"]), 4096
        case "slack":
            assert utf16_units(found["blocks"][0]["text"]["text"]) <= 150
            return utf16_units(found["blocks"][1]["text"]["text"]), 3000
        case "on_call":
            assert len(found["message"]) <= 130
            return len(found["description"]), 15_000
    return len(encoded(document)), 28_000


@pytest.mark.parametrize("name", CHANNELS)
@settings(deadline=None)
@given(title=TEXTS, what=TEXTS, detail=TEXTS, next_step=TEXTS, times=st.integers(1, 2000), count=st.integers(0, 60))
def test_whatever_is_wrong_fits_and_says_where(
    name: str, title: str, what: str, detail: str, next_step: str, times: int, count: int
) -> None:
    problem = Problem(what, detail * times, next_step)
    document = CHANNELS[name].fitting(notification(f"{title} " * times, (problem,) * count))
    length, limit = size(name, document)
    assert length <= limit
    text = json.dumps(document)
    assert "robot-1" in text and RUNBOOK in text


@pytest.mark.parametrize(("name", "problems"), [("telegram", 12), ("slack", 12), ("teams", 80), ("on_call", 60)])
def test_what_is_cut_fills_what_there_is_and_counts_the_rest(name: str, problems: int) -> None:
    """Twelve programs that cannot be reached, with addresses that Slack wants escaped."""
    address = "https://service.example/health?" + "&".join(f"key{number}=&&&&" for number in range(40))
    listed = tuple(Problem(f"FAIL api {number}", f"no answer from {address}", "start it") for number in range(problems))
    document = CHANNELS[name].fitting(notification("robot-1 is not ready", listed))
    length, limit = size(name, document)
    assert 0.75 * limit < length <= limit
    text = json.dumps(document)
    assert "FAIL api 0" in text and "FAIL api 1:" in text
    assert f"FAIL api {problems - 1}:" not in text and " more" in text


@pytest.mark.parametrize("name", CHANNELS)
def test_what_fits_is_left_as_it_is(name: str) -> None:
    message = notification("robot-1 is not ready", (Problem("FAIL redis", "no answer", "start redis-server"),))
    assert CHANNELS[name].fitting(message) == CHANNELS[name].document(message)


def test_a_program_gets_everything() -> None:
    problems = (Problem("FAIL", "x" * 100_000, ""),) * 3
    document = Webhook(SECRET).fitting(notification("t" * 5000, problems))
    assert len(document["title"]) == 5000
    assert [len(one["detail"]) for one in document["problems"]] == [100_000] * 3


def test_half_a_character_does_not_keep_a_message_back() -> None:
    assert json.loads(encoded({"text": "before \ud83d after"})) == {"text": "before ? after"}


def test_words_of_a_host_are_no_link_in_a_card() -> None:
    problem = Problem("redis", "[all is well](http://192.0.2.66/)", "")
    told = Notification(priority=Priority.P0, source="s", host="h", environment="prod", title="t", problems=(problem,))
    document = json.dumps(Teams(SecretStr("http://x")).document(told))
    assert "](" not in document
    assert "all is well" in document
