"""Records what a host answers to every look: `python -m tests.record_looks HOST --inventory FILE [SUBJECT ...]`.

Writes tests/unit/looks/<subject>.txt, one for each look that has something to ask of the host; the others stay. Unit
tests read them instead of a host, and tests/unit/test_verify_looks.py holds them against what is asked today.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from rtinfra.connection import Connections
from rtinfra.facts import output_sections
from rtinfra.hosts import fleet_in, selected
from rtinfra.verify import snapshot
from rtinfra.verify.questions import Questions, questions_of
from rtinfra.verify.snapshot import LOOKS, Look

PLACE: Final = Path(__file__).parent / "unit" / "looks"
#: NUL, which grep puts after file names, as a sign that an editor shows.
VISIBLE_NUL: Final = "␀"
#: Shell commands that answer with a recording, whose name follows, under the marker of the script on standard input.
ANSWERING: Final = r"""marker=$(sed -n 's/^echo \(@@[0-9a-f]*:\)online$/\1/p'); sed "s/^@@/${marker:-@@}/" """
_UUID: Final = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
#: Looks that say nothing of a host without telemetry, preflight and mirror.
ELSEWHERE: Final = ("private_files", "containers", "filebeat", "mirror_client", "mirror_server")


def subject_of(look: Look) -> str:
    """Return the name of a look's room."""
    return str(look.__name__).rpartition(".")[2]  # type: ignore[attr-defined]  # a look is a module


SUBJECTS: Final = tuple(subject_of(look) for look in LOOKS)


def sections_of(look: Look, questions: Questions) -> list[str]:
    """Return the sections that a look asks for, those of scripts within its commands included."""
    script = output_sections.script(look.ask(questions), questions.marker)
    # A name with a blank is quoted.
    return re.findall(rf"^echo '?{re.escape(questions.marker)}(.+?)'?$", script, re.MULTILINE)


def recorded(subjects: Iterable[str]) -> str:
    """Return the recorded answers to some looks, as a host gives them in one."""
    texts = [(PLACE / f"{subject}.txt").read_text(encoding="utf-8") for subject in subjects]
    return as_answered("".join([*texts, f"{output_sections.MARKER}end\nreached\n"]).replace(VISIBLE_NUL, "\0"))


def as_answered(text: str) -> str:
    """Return recorded sections with the empty line with which a host ends each, and which is not recorded."""
    return re.sub(rf"^{output_sections.MARKER}", f"\n{output_sections.MARKER}", text, flags=re.MULTILINE)


def rt_host() -> str:
    """Return the recorded answer of a real-time host that has no other role."""
    return recorded(subject for subject in SUBJECTS if subject not in ELSEWHERE)


def files(text: str, questions: Questions) -> Iterator[tuple[str, str]]:
    """Yield the recordings in a host's answer: the subject and its text; ids of disks are replaced by numbers."""
    numbers: dict[str, str] = {}
    found = output_sections.parse(text.removesuffix("\n").split("\n"), questions.marker)
    for look in LOOKS:
        names = sections_of(look, questions)
        lines = [line for name in names for line in (f"{output_sections.MARKER}{name}", *found.get(name, ()))]
        body = _UUID.sub(
            lambda match: numbers.setdefault(match[0], f"00000000-0000-4000-8000-{len(numbers) + 1:012}"),
            "\n".join(lines).replace("\0", VISIBLE_NUL),
        )
        if names:
            yield subject_of(look), f"{body}\n"


def main() -> None:
    """Ask the host and write the files."""
    parser = argparse.ArgumentParser(prog="python -m tests.record_looks", description="record what a host answers")
    parser.add_argument("host")
    parser.add_argument("subjects", nargs="*", help=f"only these of {', '.join(SUBJECTS)}")
    parser.add_argument("--inventory", type=Path, required=True)
    arguments = parser.parse_args()
    fleet = fleet_in(arguments.inventory)
    host = selected(fleet, [arguments.host])[arguments.host]
    asked = replace(questions_of(fleet, host), marker=output_sections.unguessable_marker())
    connections = Connections([host])
    try:
        text = connections.feed(host.name, snapshot.script(asked)).text
    finally:
        connections.close()
    for subject, body in files(text, asked):
        if not arguments.subjects or subject in arguments.subjects:
            (PLACE / f"{subject}.txt").write_text(body, encoding="utf-8")
            print(PLACE / f"{subject}.txt")


if __name__ == "__main__":
    main()
