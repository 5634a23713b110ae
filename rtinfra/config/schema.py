"""What a settings model says about a key somewhere below it: its type, bounds, allowed values, secrecy."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal, TypeGuard, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from rtinfra.config.merge import Located

#: Where pydantic reports an error about the key of a mapping instead of its value.
KEY_LABEL: Final = "[key]"


def root_field(model: type[BaseModel]) -> FieldInfo:
    """Return a field that stands for a whole model."""
    return FieldInfo.from_annotation(model)


def step(field: FieldInfo, key: str | int) -> FieldInfo | None:
    """Return the field under `key`, a key of a model or mapping or a position in a list; None if unknown."""
    for variant in _variants(field):
        annotation, origin, arguments = _taken_apart(variant)
        if _is_model(annotation):
            if key in annotation.model_fields:
                return annotation.model_fields[str(key)]
        elif origin is not None and isinstance(origin, type) and arguments:
            if issubclass(origin, Mapping):
                return FieldInfo.from_annotation(arguments[0 if key == KEY_LABEL else 1])
            if issubclass(origin, (Sequence, set, frozenset)):
                return FieldInfo.from_annotation(arguments[0])
    return None


def model_keys(field: FieldInfo) -> tuple[str, ...] | None:
    """Return the keys a section may have; None when the field is no section with fixed keys."""
    annotations: list[Any] = [variant.annotation for variant in _variants(field)]
    models = [annotation for annotation in annotations if _is_model(annotation)]
    return tuple(name for model in models for name in model.model_fields) if models else None


def bounds(field: FieldInfo) -> tuple[Any, Any, Any, Any]:
    """Return the limits (at least, more than, at most, less than) of a number, each None when not set."""
    limits: dict[str, Any] = {}
    for variant in _variants(field):
        for constraint in variant.metadata:
            for kind, name in _LIMITS.items():
                if isinstance(constraint, kind):
                    limits[name] = getattr(constraint, name)
    return limits.get("ge"), limits.get("gt"), limits.get("le"), limits.get("lt")


_LIMITS: Final[Mapping[type, str]] = {
    annotated_types.Ge: "ge",
    annotated_types.Gt: "gt",
    annotated_types.Le: "le",
    annotated_types.Lt: "lt",
}


def allowed_values(field: FieldInfo) -> tuple[object, ...]:
    """Return the values of a Literal or an Enum; nothing for other types."""
    allowed: list[object] = []
    for variant in _variants(field):
        annotation, origin, arguments = _taken_apart(variant)
        if origin is Literal:
            allowed += arguments
        elif isinstance(annotation, type) and issubclass(annotation, Enum):
            allowed += [member.value for member in annotation]
    return tuple(allowed)


def is_secret(field: FieldInfo) -> bool:
    """Tell whether the field, or what its list or mapping consists of, is a pydantic secret."""
    for variant in _variants(field):
        annotation, _, arguments = _taken_apart(variant)
        if annotation in (SecretStr, SecretBytes):
            return True
        if any(is_secret(FieldInfo.from_annotation(item)) for item in arguments if isinstance(item, type)):
            return True
    return False


def without_resets(tree: Located, model: type[BaseModel]) -> object:
    """Return the plain data of a tree without the keys that an explicit `null` resets to their default.

    A null stays where the model has no default for it, since then it is either a value of its own (an
    optional key) or a mistake to report, and where the model does not know the key at all.
    """
    return _plain(tree, root_field(model))


def _plain(tree: Located, field: FieldInfo | None) -> object:
    if isinstance(tree.value, tuple):
        return [_plain(item, field and step(field, index)) for index, item in enumerate(tree.value)]
    if not isinstance(tree.value, Mapping):
        return tree.value
    return {
        key: _plain(child, field and step(field, key))
        for key, child in tree.value.items()
        if child.value is not None or not _has_default(field, key)
    }


def _has_default(field: FieldInfo | None, key: str) -> bool:
    """Tell whether leaving `key` out of this section means something."""
    if field is None or model_keys(field) is None:
        return True  # in a mapping of free keys, null takes out what a lower layer put in
    below = step(field, key)
    return below is not None and not below.is_required()


def _variants(field: FieldInfo) -> Iterator[FieldInfo]:
    """Yield the field itself and, for a union, each of its members."""
    yield field
    if get_origin(field.annotation) in (Union, types.UnionType):
        for member in get_args(field.annotation):
            yield from _variants(FieldInfo.from_annotation(member))


def _taken_apart(field: FieldInfo) -> tuple[Any, Any, tuple[Any, ...]]:
    return field.annotation, get_origin(field.annotation), get_args(field.annotation)


def _is_model(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
