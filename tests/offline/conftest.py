"""The offline journey has machines of its own: one is the mirror, the other has nothing but that."""

from __future__ import annotations

from rtinfra.paths import PROJECT

LAB = PROJECT / ".lab-offline"
INVENTORY = LAB / "inventory.yaml"
