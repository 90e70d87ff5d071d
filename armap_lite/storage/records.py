"""Frozen dataclasses as JSON and back: `Record` is the base class of all that stages write and read."""

import dataclasses
import functools
import typing
from inspect import formatannotation
from typing import Any, ClassVar


class Record:
    """JSON in and out for a frozen dataclass."""

    JSON_NAMES: ClassVar[dict[str, str]] = {}  # fields that have another name in files

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON types; empty optional fields are left out."""
        return _to_json(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Any:
        """The record back from `to_json`'s output. Raises ValueError on unknown or missing fields."""
        fields = _fields(cls)  # type: ignore[arg-type]
        if unknown := set(data) - set(fields):
            raise ValueError(f"{cls.__name__} has no field {sorted(unknown)}; it has {sorted(fields)}")
        try:
            return cls(**{fields[name][0]: _from_json(fields[name][1], value) for name, value in data.items()})
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: {error}") from error


class CheckedRecord(Record):
    """A record that raises ValueError for a value of another type than its field."""

    def __post_init__(self) -> None:
        for name, kind in _fields(type(self)).values():  # type: ignore[arg-type]
            value = getattr(self, name)
            right = isinstance(value, kind) or (kind is float and isinstance(value, int))
            if not right or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"{name}={value!r}: expected {formatannotation(kind)}")


@functools.cache
def _fields(record: type[Record]) -> dict[str, tuple[str, Any]]:
    """Name in JSON -> (name, type) of each field."""
    types = typing.get_type_hints(record)
    names = [f.name for f in dataclasses.fields(record)]  # type: ignore[arg-type]
    return {record.JSON_NAMES.get(name, name): (name, types[name]) for name in names}


def _from_json(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, Record):
        return kind.from_json(value)
    if typing.get_origin(kind) is tuple:
        return tuple(_from_json(typing.get_args(kind)[0], item) for item in value)
    return value


def _to_json(value: Any) -> Any:
    if isinstance(value, Record):
        pairs = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))  # type: ignore[arg-type]
        return {
            value.JSON_NAMES.get(f.name, f.name): _to_json(v)
            for f, v in pairs
            if v is not None and not (isinstance(v, (str, tuple)) and v == f.default)
        }
    return [_to_json(item) for item in value] if isinstance(value, (tuple, list)) else value
