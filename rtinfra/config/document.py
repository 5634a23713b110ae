"""A YAML file that is one value of a model, with the line of everything that is wrong in it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from rtinfra.config.explain import explain
from rtinfra.config.merge import Located, nearest_place
from rtinfra.config.problems import ConfigError, Problem
from rtinfra.config.yaml import load_yaml

M = TypeVar("M", bound=BaseModel)


def load_document(model: type[M], path: Path, name: str) -> M:
    """Read a file; `name` is how problems call it.

    Raises:
        ConfigError: it cannot be read or is wrong; every problem with its line.
    """
    return validated(model, load_yaml(path, name), name)


def validated(model: type[M], tree: Located, name: str) -> M:
    """Return the value that a tree is.

    Raises:
        ConfigError: it is none; every problem with its line.
    """
    data = tree.plain()
    try:
        return model.model_validate(data)
    except ValidationError as error:
        findings = explain(error, model, data)
    places = tree.places()
    located = ((finding, nearest_place(places, finding.key)) for finding in findings)
    raise ConfigError(
        Problem(name, place.line if place else None, found.key, found.value, found.reason, found.suggestion)
        for found, place in located
    )
