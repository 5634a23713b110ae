"""Which secrets settings ask for."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel


def secret_names(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Return the secrets that settings ask for, by key: every field that ends in `_secret` or `_secrets`."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for key, one in [(name, value)] if not isinstance(value, tuple) else _numbered(name, value):
            if isinstance(one, BaseModel):
                yield from secret_names(one, f"{prefix}{key}.")
            elif isinstance(one, str) and name.endswith(("_secret", "_secrets")):
                yield f"{prefix}{key}", one


def _numbered(name: str, values: tuple[object, ...]) -> list[tuple[str, object]]:
    return [(f"{name}.{number}", value) for number, value in enumerate(values)]
