"""The packet filter as it is in the kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rtinfra.facts.packet_filter import TABLE
from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions

_CHAIN: Final = "input"


@dataclass(frozen=True)
class PacketFilter:
    """Our table. `policy` is the kernel's word for packets that no rule is about; empty where there is no table.

    `ours` are ports (`tcp 9100`) that are refused to whom `openings` (`tcp 9100 192.0.2.8/32`) does not name.
    `verdicts` tells for each set that rules ask what becomes of packets in it; `rules` is the number of all rules for
    what comes in.
    """

    policy: str
    openings: frozenset[str]
    ours: frozenset[str]
    verdicts: Mapping[str, str]
    rules: int

    @property
    def is_there(self) -> bool:
        """Whether there is a table that packets go through."""
        return bool(self.policy)


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for the table."""
    return {"packet_filter": f"nft -j list table {TABLE}"}


def read(answer: Answer) -> PacketFilter:
    """Read what `ask` asked.

    Raises:
        ValueError: it is no list of a table.
    """
    try:
        return _read(answer)
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"nft lists no table in a form that is read here: {error}") from error


def _read(answer: Answer) -> PacketFilter:
    text = answer.text("packet_filter").strip()
    parts: list[Mapping[str, Any]] = json.loads(text)["nftables"] if text else []
    chains = [part["chain"] for part in parts if "chain" in part and part["chain"].get("hook") == _CHAIN]
    rules = [part["rule"]["expr"] for part in parts if "rule" in part and part["rule"]["chain"] == _CHAIN]
    sets = {part["set"]["name"]: part["set"].get("elem", ()) for part in parts if "set" in part}
    elements = {name: frozenset(map(_element, found)) for name, found in sets.items()}
    return PacketFilter(
        policy=chains[0].get("policy", "") if chains else "",
        openings=elements.get("open4", frozenset()) | elements.get("open6", frozenset()),
        ours=elements.get("ours", frozenset()),
        verdicts=dict(verdict for rule in rules for verdict in _verdicts(rule)),
        rules=len(rules),
    )


def _element(found: Mapping[str, Any]) -> str:
    """Return an element of a set as words; of an address also how much of it counts."""
    # With a counter or a comment it is wrapped, libnftables-json(5).
    bare = found["elem"]["val"] if "elem" in found else found
    return " ".join(_part(part) for part in bare["concat"])


def _part(found: object) -> str:
    if isinstance(found, Mapping):
        return f"{found['prefix']['addr']}/{found['prefix']['len']}"
    text = str(found)
    return f"{text}/128" if ":" in text else f"{text}/32" if "." in text else text


def _verdicts(rule: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the set that a rule is about, and what it does: `accept`, or the chain that it goes to."""
    asked = [str(part["match"]["right"]) for part in rule[:-1] if "match" in part]
    last = rule[-1] if rule else {}
    verdict = last["goto"]["target"] if "goto" in last else next(iter(last), "")
    if len(asked) == 1 and asked[0].startswith("@"):
        yield asked[0].removeprefix("@"), verdict
