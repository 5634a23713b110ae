"""Hosts that pyinfra's connector @fake plays: their answers are known before they are asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from rtinfra.facts import output_sections


@contextmanager
def known_marker() -> Iterator[None]:
    """Let sections begin with the marker of written answers; hosts are asked with one for each run."""
    with mock.patch.object(output_sections, "unguessable_marker", lambda: output_sections.MARKER):
        yield
