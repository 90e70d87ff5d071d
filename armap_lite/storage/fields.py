"""Fields of settings: checked when a dataclass is made, and by their present names when a file is read."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Config = TypeVar("Config")
KINDS: dict[str, Any] = {"int": int, "float": int | float, "str": str, "bool": bool, "None": type(None)}


def hint(name: str, known: Sequence[str], former_names: Mapping[str, str]) -> str:
    """What to say of `name`, which is not among the `known` ones: its present name, or which ones there are."""
    now = former_names.get(name)
    return f"it is called {now!r} now" if now in known else f"it has {', '.join(known) or 'none'}"


def current_names(fields: Mapping[str, Any], former_names: Mapping[str, str]) -> dict[str, Any]:
    """`fields` of a file by the names they have now. Raises ValueError for a field given under both names."""
    now = {former_names.get(name, name): value for name, value in fields.items()}
    if len(now) < len(fields):
        twice = [name for name in fields if former_names.get(name) in fields]
        raise ValueError(f"{twice[0]!r} is the former name of {former_names[twice[0]]!r}, which is there too")
    return now


def checked(former_names: Mapping[str, str]) -> Callable[[type[Config]], type[Config]]:
    """A decorator for dataclasses: they raise ValueError for an unknown field, or a value of another type."""

    def decorate(kind: type[Config]) -> type[Config]:
        fields, made = dataclasses.fields(kind), kind.__init__  # type: ignore[misc, arg-type]

        @functools.wraps(made)
        def init(self: Any, *values: Any, **named: Any) -> None:
            known = [field.name for field in fields]
            if unknown := [name for name in named if name not in known]:
                why = hint(unknown[0], known, former_names)
                raise ValueError(f"{kind.__name__} has no field {unknown[0]!r}; {why}")
            for name, value in {**dict(zip(known, values)), **named}.items():
                expected = str(next(field.type for field in fields if field.name == name))
                kinds = tuple(KINDS[one] for one in expected.split(" | "))
                if not isinstance(value, kinds) or (isinstance(value, bool) and expected != "bool"):
                    raise ValueError(f"{name}={value!r}: expected {expected}")
            made(self, *values, **named)

        kind.__init__ = init  # type: ignore[method-assign]
        return kind

    return decorate
