"""Which packages have known weaknesses: components held against advisories, what is waived taken out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cmp_to_key, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from rtinfra.images import LocalStore
from rtinfra.local.progress import Reporter
from rtinfra.mirror import components, osv
from rtinfra.mirror.components import Component
from rtinfra.mirror.ecosystems import GO, PYPI, compare
from rtinfra.mirror.finding import Finding
from rtinfra.mirror.osv import Advisories, Advisory, Affected, Range
from rtinfra.mirror.store import Mirror
from rtinfra.mirror.waived import WAIVERS, Waiver, load_waivers
from rtinfra.terminal import plain

if TYPE_CHECKING:
    from _typeshed import SupportsAllComparisons

#: Advisories that are older than this say little about today.
OLD: Final = timedelta(days=45)
# Of files that cannot be read so many are named one by one.
_MOST_NAMED: Final = 20
# Debian's team: no weakness of the package as it is built.
_UNIMPORTANT: Final = "unimportant"


class Weakness(Finding):
    """A package that has a known weakness. `fixed` is the first version without it; None where there is none yet."""

    ecosystem: str
    package: str
    version: str
    weakness: str
    names: tuple[str, ...]
    fixed: str | None
    severity: Literal["error", "warning", "waived"]


@dataclass(frozen=True)
class _Hit:
    advisory: Advisory
    fixed: str | None


@dataclass(frozen=True)
class Audited:
    """What holding packages against advisories found, the worst first, and what was held against what."""

    findings: tuple[Finding, ...]
    summary: str


def audit(
    project: Path,
    lock: Path,
    mirror: Mirror,
    store: LocalStore,
    advisories: Sequence[Path],
    now: datetime,
    report: Reporter,
) -> Audited | None:
    """Hold every package of the project and of all locks that are in use here against advisories.

    Without any named, those that the locks brought; None when they brought none.

    Raises:
        ConfigError: the lock or the file of waivers is wrong, with file and line.
        MirrorError: advisories are missing, or something that names packages cannot be read.
    """
    found = list(components.locks(lock, mirror))
    locks = [one for _, one in found]
    paths = advisories or components.carried(locks, mirror.pool)
    if not paths:
        return None
    waivers = load_waivers(project / WAIVERS)
    with report.step("Holding packages against advisories", usual=20):
        audited = find(components.everything(project, found, mirror.pool, store), paths, waivers, now)
    unknown = components.not_looked_into(locks, store)
    if not unknown:
        return audited
    notice = Finding(
        file=", ".join(shown for shown, _ in found),
        problem=f"nobody here knows what is in these images and packages: {', '.join(unknown)}",
        next_step="read what their vendors, or Debian, say of these versions",
        severity="warning",
    )
    return Audited((*audited.findings, notice), audited.summary)


def find(packages: Iterable[Component], paths: Sequence[Path], waivers: Sequence[Waiver], now: datetime) -> Audited:
    """Hold packages against advisories.

    Raises:
        MirrorError: advisories are missing, or more than anybody publishes.
    """
    by_package: dict[tuple[str, str, str], list[Component]] = defaultdict(list)
    for component in packages:
        by_package[(*component.key, component.version)].append(component)
    advisories = osv.read(paths, {found[0].key for found in by_package.values()})
    about: dict[tuple[str, str], list[tuple[Advisory, Affected]]] = defaultdict(list)
    for advisory in advisories.entries:
        for affected in advisory.affected:
            about[affected.key].append((advisory, affected))
    used: set[Waiver] = set()
    weak = [
        finding
        for found in by_package.values()
        for finding in _of_package(found, about.get(found[0].key, ()), waivers, used, now.date())
    ]
    weak += [_useless(waiver) for waiver in waivers if waiver not in used]
    ranks = ("error", "warning", "waived")
    weak.sort(key=lambda one: (ranks.index(one.severity), one.problem))
    held = ", ".join(
        f"{ecosystem} {advisories.counts.get(ecosystem, 0)}"
        for ecosystem in sorted({found[0].ecosystem for found in by_package.values()})
    )
    return Audited(
        (*_unfit(advisories, by_package.values(), paths, now), *weak),
        f"{len(by_package)} packages held against advisories: {held}",
    )


def _useless(waiver: Waiver) -> Finding:
    return Finding(
        file=WAIVERS,
        problem=f"the waiver of {waiver.weakness} in {waiver.package} waives nothing",
        next_step="remove it",
        severity="warning",
    )


def _unfit(
    advisories: Advisories, found: Iterable[Sequence[Component]], paths: Sequence[Path], now: datetime
) -> Iterator[Finding]:
    """Advisories that cannot be read, are old, or are not about what is here: without them nothing would be found."""
    again = "get it again from where it came"
    for one in advisories.unreadable[:_MOST_NAMED]:
        yield Finding(file=plain(one.file), problem=plain(one.reason), next_step=again)
    if (more := len(advisories.unreadable) - _MOST_NAMED) > 0:
        yield Finding(file=str(paths[0]), problem=f"{more} more files cannot be read", next_step=again)
    shown = ", ".join(map(str, paths))
    packages: dict[str, int] = defaultdict(int)
    for same in found:
        packages[same[0].ecosystem] += 1
    for ecosystem, number in sorted(packages.items()):
        newest = advisories.newest.get(ecosystem)
        if not advisories.counts.get(ecosystem):
            yield Finding(
                file=shown,
                problem=f"no advisory is about {ecosystem}: {number} packages of it were not audited",
                next_step=f"add those of {ecosystem.partition(':')[0]}: docs/offline.md, Weaknesses",
            )
        elif newest is None or now - newest > OLD:
            age = f"is of {newest:%Y-%m-%d}" if newest else "does not say of when it is"
            yield Finding(
                file=shown,
                problem=f"the newest advisory about {ecosystem} {age}: what became known since is not in it",
                next_step="carry newer ones here",
                severity="warning",
            )


def _of_package(
    found: Sequence[Component],
    about: Iterable[tuple[Advisory, Affected]],
    waivers: Sequence[Waiver],
    used: set[Waiver],
    today: date,
) -> Iterator[Finding]:
    component = found[0]
    hits = []
    for advisory, affected in about:
        try:
            hit = _hit(component, advisory, affected)
        except ValueError as error:
            yield Finding(
                file=_places(found),
                problem=f"{component.name} {component.version} cannot be held against {plain(advisory.id)}: {error}",
                next_step="compare them yourself",
            )
            continue
        if hit is not None:
            hits.append(hit)
    for same in _grouped(hits):
        yield _judged(found, same, waivers, used, today)


def _hit(component: Component, advisory: Advisory, affected: Affected) -> _Hit | None:
    """Return the weakness of a package by one entry of an advisory; None when it has it not.

    Raises:
        ValueError: a version is none.
    """
    if affected.ecosystem_specific is not None and affected.ecosystem_specific.urgency == _UNIMPORTANT:
        return None
    ranges = [one for one in affected.ranges if one.type in ("SEMVER", "ECOSYSTEM")]
    hit = [one for one in ranges if _within(component, one)]
    if not hit and component.version not in affected.versions:
        return None
    fixes = [fix for one in hit or ranges if (fix := _fix(component, one)) is not None]
    return _Hit(advisory, min(fixes, key=_ordered(component.ecosystem), default=None))


def _within(component: Component, versions: Range) -> bool:
    """Tell whether a version is in a range: by the last event that is not after it, whatever order they stand in."""
    order = partial(compare, component.ecosystem)
    kinds = [("in", one.introduced) for one in versions.events]
    kinds += [("out", one.fixed) for one in versions.events]
    kinds += [("last", one.last_affected) for one in versions.events]
    weak = ("in", "0") in kinds
    events = [(version, kind) for kind, version in kinds if version is not None and (kind, version) != ("in", "0")]
    key = _ordered(component.ecosystem)
    for version, kind in sorted(events, key=lambda event: key(event[0])):
        relation = order(component.version, version)
        if kind == "in" and relation >= 0:
            weak = True
        elif relation > 0 or (kind == "out" and relation == 0):
            weak = False
    return weak


def _fix(component: Component, versions: Range) -> str | None:
    """Return the first version after this one in which a range ends."""
    order = partial(compare, component.ecosystem)
    later = [one.fixed for one in versions.events if one.fixed is not None and order(one.fixed, component.version) > 0]
    return min(later, key=_ordered(component.ecosystem), default=None)


def _ordered(ecosystem: str) -> Callable[[str], SupportsAllComparisons]:
    return cmp_to_key(partial(compare, ecosystem))


def _grouped(hits: Sequence[_Hit]) -> Iterator[Sequence[_Hit]]:
    """Put together what several databases say of one weakness."""
    groups: list[tuple[set[str], list[_Hit]]] = []
    for hit in hits:
        names, same = set(hit.advisory.names), [hit]
        for group in [one for one in groups if not one[0].isdisjoint(names)]:
            groups.remove(group)
            names |= group[0]
            same = [*group[1], *same]
        groups.append((names, same))
    yield from (same for _, same in groups)


def _judged(
    found: Sequence[Component], same: Sequence[_Hit], waivers: Sequence[Waiver], used: set[Waiver], today: date
) -> Weakness:
    component = found[0]
    names = sorted({plain(name) for hit in same for name in hit.advisory.names}, key=_best_known)
    fixes = [hit.fixed for hit in same]
    # Every database has to call it mended.
    known = [fix for fix in fixes if fix is not None]
    fixed = max(known, key=_ordered(component.ecosystem)) if known and len(known) == len(fixes) else None
    others = f" ({', '.join(names[1:])})" if len(names) > 1 else ""
    title = plain(min((hit.advisory for hit in same), key=lambda one: not one.summary).title)
    problem = f"{component.name} {component.version} ({component.ecosystem}) has {names[0]}{others}: {title}"
    severity: Literal["error", "warning", "waived"] = "error"
    if fixed is None and component.ecosystem not in (PYPI, GO):
        # The distribution watches it and has not mended it: there is nothing to take.
        severity = "warning"
    step = _way_out(component, names[0], fixed)
    matching = [waiver for waiver in waivers if waiver.covers(component.name, names)]
    used.update(matching)
    if matching:
        last = max(matching, key=lambda waiver: waiver.expires)
        if today > last.expires:
            step = f"the waiver of {last.owner} ended on {last.expires}: {step}"
        else:
            severity, step = "waived", f"until {last.expires} by {last.owner}: {last.reason}"
    return Weakness(
        file=_places(found),
        problem=problem,
        next_step=step,
        severity=severity,
        ecosystem=component.ecosystem,
        package=component.name,
        version=component.version,
        weakness=names[0],
        names=tuple(names),
        fixed=fixed,
    )


def _best_known(name: str) -> tuple[int, str]:
    return (0 if name.startswith("CVE-") else 1 if name.startswith("GHSA-") else 2), name


def _way_out(component: Component, weakness: str, fixed: str | None) -> str:
    waive = f"waive {weakness} until a day in {WAIVERS}"
    if fixed is None:
        return f"no version mends it yet: do without {component.name}, or {waive}"
    return f"{plain(fixed)} or newer: {component.renew}; or {waive}"


def _places(found: Sequence[Component]) -> str:
    return ", ".join(dict.fromkeys(component.where for component in found))
