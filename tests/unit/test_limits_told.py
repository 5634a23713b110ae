"""Documents, pages of alerts and titles of controls tell the limits of metrics/limits.yaml, and no others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from rtinfra.limits import Limits, filled, project_limits
from rtinfra.paths import PROJECT
from rtinfra.verify.verification import TESTS as COMPLIANCE

SHIPPED = project_limits()

#: What documents say, with the limits that are in it. `{name}` is the amount in the short form of tables.
DOCUMENTS: Mapping[str, tuple[str, ...]] = {
    "docs/alerts.md": (
        "| nothing on the host has answered for {host_silence} |",
        "| less than [[disk_free_critical_ratio:percent]] free for 2 min |",
        "| less than [[disk_free_low_ratio:percent]] free for 10 min |",
        "| less than [[memory_free_ratio:percent]] available for 5 min |",
        "| {clock_difference} off the monitoring host for 2 min |",
        "| check results older than {check_age}, or unreadable |",
        "| the host has not checked itself for {check_age} |",
        "| no run without a failure for {preflight_age}, or never |",
        "| no metrics of it for {preflight_age} |",
        "| a program on a robot has sent no metrics for {service_silence} |",
        "| a gateway or backend has sent no metrics for {service_silence} |",
        "| a service that sends through the collectors stopped {service_silence} ago |",
        "| more than [[http_error_ratio:percent]] answers 5xx over {http_error_window} |",
        "| [[deadline_burn_fast_factor]] times the allowed misses over 1 h and 5 min |",
        "| [[deadline_burn_factor]] times over 6 h and 30 min |",
        "| 99 % quantile above [[jitter_ratio:percent]] of the cycle for 2 min |",
        "| less than [[numa_local_percent:percent]] local memory for 5 min |",
        "| above [[queue_fill_ratio:percent]] of its capacity for 1 min |",
        "| the alert that is always on has not come for {watchdog_silence} |",
    ),
    "docs/compliance.md": ("`TextfileStale` reminds you after [[check_age:span]].",),
    "docs/offline.md": ("`rtinfra verify` complains [[certificate_left:span]] before.",),
    "docs/stack.md": ("| disk space | less than [[disk_used_low_ratio:percent]] used where the data are |",),
    "docs/rt-host.md": (
        "[[numa_local_percent:percent]] near memory (`RT-5.5`)",
        "answers in {health_answer}\n(`RT-9.2` `RT-12.14`)",
        "back within {recovery} (`RT-12.10` `RT-12.22`)",
        "`rt_app.unit.restart_delay` of {recovery} or more cannot meet",
        "After a kill: running again within {recovery} and",
    ),
    "docs/runbooks/BackendDown.md": ("부분이 [[service_silence:korean]] 동안",),
    "docs/runbooks/ClockWrong.md": ("[[clock_difference:korean]] 넘게", "by more than [[clock_difference:span]]."),
    "docs/runbooks/CollectorQueueFilling.md": ("대기열이 [[queue_fill_ratio:percent]] 넘게",),
    "docs/runbooks/DeadlineBudgetBurns.md": (
        "허용치의 [[deadline_burn_factor:whole]]배를 넘는",
        "fewer than [[deadline_miss_ratio:percent]] of all cycles",
        "Here it is more than [[deadline_burn_factor]] times",
    ),
    "docs/runbooks/DeadlineBudgetBurnsFast.md": (
        "허용치의 [[deadline_burn_fast_factor:whole]]배를 넘는",
        "fewer than [[deadline_miss_ratio:percent]] of all cycles",
        "Here it is more than [[deadline_burn_fast_factor]] times",
    ),
    "docs/runbooks/DeadlineBudgetBurnsSlowly.md": (
        "목표([[deadline_miss_ratio:percent]])를",
        "fewer than [[deadline_miss_ratio:percent]] of all cycles",
    ),
    "docs/runbooks/DiskSpaceCritical.md": (
        "디스크가 [[disk_used_critical_ratio:percent]] 넘게",
        "Less than [[disk_free_critical_ratio:percent]] of a disk is free.",
    ),
    "docs/runbooks/DiskSpaceLow.md": (
        "여유 공간이 [[disk_free_low_ratio:percent]] 미만",
        "Less than [[disk_free_low_ratio:percent]] of a disk is free.",
    ),
    "docs/runbooks/DriftCheckStale.md": ("for more than [[check_age:span]].",),
    "docs/runbooks/HostDown.md": ("호스트가 [[host_silence:korean]] 동안",),
    "docs/runbooks/HttpErrorsHigh.md": (
        "요청의 [[http_error_ratio:percent]] 넘게",
        "More than [[http_error_ratio:percent]] of the requests to a service within [[http_error_window:span]]",
    ),
    "docs/runbooks/JitterHigh.md": (
        "주기의 [[jitter_ratio:percent]] 넘게",
        "later than [[jitter_ratio:percent]] of the cycle.",
    ),
    "docs/runbooks/MemoryLow.md": (
        "메모리가 [[memory_free_ratio:percent]] 미만",
        "Less than [[memory_free_ratio:percent]] of the memory",
    ),
    "docs/runbooks/NumaLocalityLow.md": (
        "메모리의 [[numa_local_percent:percent]] 미만",
        "Less than [[numa_local_percent:percent]] of it is close.",
    ),
    "docs/runbooks/PreflightOld.md": (
        "[[preflight_age:korean]] 넘게",
        "for more than [[preflight_age:span]], or never",
    ),
    "docs/runbooks/PreflightSilent.md": ("[[preflight_age:korean]] 넘게", "for more than [[preflight_age:span]]:"),
    "docs/runbooks/PushedServiceSilent.md": ("서비스가 [[service_silence:korean]] 동안",),
    "docs/runbooks/ServiceDown.md": (
        "프로그램이 [[service_silence:korean]] 동안",
        "has not answered for [[service_silence:span]],",
    ),
    "docs/runbooks/TextfileStale.md": ("[[check_age:korean]] 넘게", "not been renewed for [[check_age:span]],"),
    "docs/runbooks/WatchdogNotArriving.md": ("for [[watchdog_silence:span]].",),
}
_SHORT = {"d": "d", "h": "h", "m": "min", "s": "s", "ms": "ms"}


def phrase(text: str, limits: Limits) -> str:
    """A phrase with limits in it."""

    def short(match: re.Match[str]) -> str:
        amount, unit = re.findall(r"^(\d+)(\w+)$", filled(f"[[{match[1]}:range]]", limits))[0]
        return f"{amount} {_SHORT[unit]}"

    return filled(re.sub(r"\{(\w+)\}", short, text), limits)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_tell_the_limits(name: str) -> None:
    text = (PROJECT / name).read_text(encoding="utf-8")
    assert not [told for told in DOCUMENTS[name] if phrase(told, SHIPPED) not in text]


@pytest.mark.parametrize("path", sorted((PROJECT / "docs" / "runbooks").glob("*.md")), ids=lambda path: path.stem)
def test_the_page_of_an_alert_tells_a_share_only_as_a_limit(path: Path) -> None:
    """Each percentage and each multiple of a page is in one of the phrases above."""
    text = path.read_text(encoding="utf-8")
    for told in DOCUMENTS.get(f"docs/runbooks/{path.name}", ()):
        text = text.replace(phrase(told, SHIPPED), "")
    assert not re.findall(r"[0-9.]+ ?%|[0-9.]+ times|[0-9]+배", text)


#: What titles of controls say in words.
TITLES = {
    "RT-5.5": "More than [[numa_local_percent:percent]] of the real-time process's memory is near its cores",
}
_IN_WORDS = {
    "RT-9.2": ("half a second", SHIPPED.health_answer.seconds == 0.5),
    "RT-12.14": ("half a second", SHIPPED.health_answer.seconds == 0.5),
    "RT-12.10": ("five seconds", SHIPPED.recovery.seconds == 5),
    "RT-11.5": ("twice as even", SHIPPED.jitter_left_ratio == 0.5),
    "OB-1.6": ("within a second", SHIPPED.log_delay.seconds == 1),
    "OB-1.7": ("Five thousand", SHIPPED.log_lines_per_second == 5000),
    "OB-4.3": ("less than a twentieth", SHIPPED.tracing_cost_ratio == 0.05),
    "OB-6.1": ("at least two gateways", SHIPPED.gateways == 2),
}


def test_titles_of_controls_tell_the_limits() -> None:
    texts = "".join(path.read_text(encoding="utf-8") for path in COMPLIANCE.glob("test_*.py"))
    titles = dict(re.findall(r'id="([A-Z]+-[0-9.]+)",\s*severity="\w+",\s*title="([^"]+)"', texts))
    for name, title in TITLES.items():
        assert titles[name] == filled(title, SHIPPED)
    for name, (words, is_so) in _IN_WORDS.items():
        assert words in titles[name]
        assert is_so, f"{name}: {titles[name]}"
