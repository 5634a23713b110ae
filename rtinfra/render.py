"""Jinja2 templates of the roles, rendered from models. A name that a template misspells is an error."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rtinfra.netloc import netloc
from rtinfra.paths import PROJECT


@cache
def _environment() -> Environment:
    # The result is configuration for machines, never HTML: escaping would corrupt it.
    environment = Environment(  # nosec B701
        loader=FileSystemLoader(PROJECT / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"netloc": netloc, "scalar": scalar}
    return environment


def scalar(text: str) -> str:
    """Return a text as it stands in YAML, where one that begins with a bracket would be a list."""
    return json.dumps(text) if text.startswith("[") else text


def render(template: str, **values: Any) -> bytes:
    """Render `templates/<template>`.

    Raises:
        jinja2.UndefinedError: when the template uses a name that `values` has not.
    """
    return _environment().get_template(template).render(**values).encode()


def render_json(value: Any) -> bytes:
    """Return `value` as the JSON of a configuration file: indented, in the given order, line break at the end."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
