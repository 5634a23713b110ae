"""Which container images a host has."""

from __future__ import annotations

from pyinfra.api.command import StringCommand
from typing_extensions import override

from rtinfra.facts.output_sections import SectionsFact


class Images(SectionsFact[frozenset[str]]):
    """Pinned references (`repository@sha256:...`) of every image in Podman's store; none without Podman."""

    @override
    def command(self) -> StringCommand:
        listing = "podman image ls --digests --no-trunc --format '{{.Repository}}@{{.Digest}}'"
        return self.asking({"images": listing})

    @override
    def process(self, output: list[str]) -> frozenset[str]:
        lines = self.sections(output).get("images", [])
        return frozenset(line.strip() for line in lines if "@sha256:" in line)
