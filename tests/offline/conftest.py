"""The offline journey has machines of its own: its scenarios run beside those of `tests/e2e`."""

from __future__ import annotations

from rtinfra.paths import PROJECT

LAB = PROJECT / ".lab-offline"
INVENTORY = LAB / "inventory.yaml"
