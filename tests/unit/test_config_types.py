"""The value types that settings models share."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, TypeAdapter, ValidationError

from rtinfra.config.types import (
    AbsolutePath,
    ByteSize,
    CpuListText,
    Distribution,
    Duration,
    FileMode,
    Port,
    RtPriority,
    SettingError,
    Settings,
    UnitName,
)

# A busy machine is slow, not wrong.
steady = settings(deadline=None)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("10s", 10_000),
        ("10", 10_000),
        ("0", 0),
        ("500ms", 500),
        ("1min 30s", 90_000),
        ("1min30s", 90_000),
        (" 2 h ", 7_200_000),
        ("1.5s", 1_500),
        ("0.1ms", 0.1),
        ("5m", 300_000),
        ("1M", 2_629_800_000),
        ("30d", 2_592_000_000),
        ("7us", 0.007),
    ],
)
def test_durations_in_systemd_notation(text: str, milliseconds: float) -> None:
    duration = Duration.parse(text)
    assert duration.milliseconds == milliseconds
    assert duration.microseconds == round(milliseconds * 1000)
    assert duration.seconds * 1000 == pytest.approx(milliseconds)
    assert str(duration) == text.strip()


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("1:30", 'write "1min 30s"'),
        ("10 bananas", 'write for example "10s"'),
        ("", None),
        ("infinity", None),
        ("-1s", None),
        ("1,5s", 'write for example "1s"'),
        ("10S", 'write for example "10s"'),
    ],
)
def test_bad_durations_are_refused(text: str, suggestion: str | None) -> None:
    with pytest.raises(SettingError, match="not a time span") as caught:
        Duration.parse(text)
    assert caught.value.suggestion == suggestion


@steady
@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_durations_compare_by_length(left: int, right: int) -> None:
    assert (Duration.parse(f"{left}ms") < Duration.parse(f"{right * 1000}us")) == (left < right)
    assert Duration.parse(f"{left}ms") == Duration.parse(f"{left * 1000}us")


@steady
@given(st.text(max_size=20))
def test_quantities_raise_nothing_but_their_own_error(text: str) -> None:
    for kind in (Duration, ByteSize):
        try:
            assert kind.parse(text).amount >= 0
        except SettingError as error:
            assert error.reason


@pytest.mark.parametrize(
    ("text", "size"), [("512", 512), ("1K", 1024), ("512M", 512 * 2**20), ("1.5G", 3 * 2**29), ("2T", 2**41)]
)
def test_sizes_in_systemd_notation(text: str, size: int) -> None:
    assert ByteSize.parse(text).bytes == size


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [("512 MB", 'write "512M"'), ("1g", 'write "1G"'), ("", None), ("10%", 'write "10M"')],
)
def test_bad_sizes_are_refused(text: str, suggestion: str | None) -> None:
    with pytest.raises(SettingError, match="not a size") as caught:
        ByteSize.parse(text)
    assert caught.value.suggestion == suggestion


@pytest.mark.parametrize(
    ("kind", "given_value", "value"),
    [
        (CpuListText, 2, "2"),
        (CpuListText, [2, 3], "2,3"),
        (CpuListText, " 2-N ", "2-N"),
        (Port, 8080, 8080),
        (RtPriority, "90", 90),
        (AbsolutePath, "/etc/mxrc", PurePosixPath("/etc/mxrc")),
        (FileMode, "644", "0644"),
        (FileMode, "01777", "1777"),
        (UnitName, "mxrc-rt.service", "mxrc-rt.service"),
        (UnitName, "getty@tty1.service", "getty@tty1.service"),
        (Distribution, "ubuntu-24.04", "ubuntu-24.04"),
        (Duration, 10, Duration.parse("10s")),
        (ByteSize, 4096, ByteSize.parse("4K")),
    ],
)
def test_good_values(kind: Any, given_value: object, value: object) -> None:
    assert TypeAdapter(kind).validate_python(given_value) == value


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (CpuListText, 2.3),
        (CpuListText, True),
        (CpuListText, [2.5]),
        (CpuListText, "3-2"),
        (CpuListText, ""),
        (Port, 0),
        (Port, 65536),
        (Port, True),
        (RtPriority, 100),
        (RtPriority, False),
        (AbsolutePath, "etc/mxrc"),
        (AbsolutePath, "/etc/../root"),
        (AbsolutePath, "/etc/a b"),
        (AbsolutePath, "/etc/a\nb"),
        (FileMode, 420),
        (FileMode, "0888"),
        (FileMode, "rw-r--r--"),
        (UnitName, "irqbalance"),
        (UnitName, "a b.service"),
        (UnitName, "x" * 300 + ".service"),
        (Distribution, "debian"),
        (Duration, 1.5),
        (Duration, True),
        (ByteSize, None),
    ],
)
def test_bad_values(kind: Any, value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(value)


class Example(Settings):
    watchdog: Duration = Duration.parse("10s")
    size: ByteSize = ByteSize.parse("1G")
    path: AbsolutePath = PurePosixPath("/var")
    password: SecretStr = SecretStr("hunter2")


def test_settings_become_plain_json_without_secrets() -> None:
    data = Example(watchdog=Duration.parse("1min 30s")).to_json()
    assert data == {"watchdog": "1min 30s", "size": "1G", "path": "/var", "password": "**********"}


def test_settings_are_immutable_and_closed() -> None:
    with pytest.raises(ValidationError):
        Example().path = PurePosixPath("/")  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Example.model_validate({"unknown": 1})


def test_raw_validation_errors_do_not_show_values() -> None:
    with pytest.raises(ValidationError) as caught:
        Example.model_validate({"password": ["hunter2"]})
    assert "hunter2" not in str(caught.value)


def test_defaults_are_checked_too() -> None:
    class Wrong(Settings):
        port: Port = 0

    with pytest.raises(ValidationError):
        Wrong()
