"""Fields that make a server answer with JSON of a given schema, and which of them a server heeds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

Schema = Mapping[str, Any]


def _response_format(schema: Schema) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": schema}}}


# In the order they are tried.
FIELDS: dict[str, Callable[[Schema], dict[str, Any]]] = {
    "response_format": _response_format,  # OpenAI, vLLM; llama.cpp's chat
    "json_schema": lambda schema: {"json_schema": schema},  # llama.cpp's completions
    "none": lambda schema: {},
}
PROBE: Schema = {
    "type": "object",
    "properties": {"zq7": {"type": "string", "enum": ["xv9"]}},
    "required": ["zq7"],
    "additionalProperties": False,
}
SIZE = {"max_tokens": 96, "temperature": 0.0}  # of the request that finds out: room for blanks between the parts
NOT_HERE = {400, 404, 405, 415, 422, 500, 501}  # the server does not know the field, or fails at it


class Shapes:
    """The fields for a schema at one server; which those are is found out when they are first needed."""

    def __init__(self) -> None:
        self._found = ""
        self._lock = threading.Lock()

    def __call__(self, schema: Schema | None, ask: Callable[[dict[str, Any]], str | None]) -> dict[str, Any]:
        """What to add to a request for an answer in `schema`. `ask`: see `find`."""
        if schema is None:
            return {}
        with self._lock:
            self._found = self._found or find(ask)
        return FIELDS[self._found](schema)


def find(ask: Callable[[dict[str, Any]], str | None]) -> str:
    """The first of `FIELDS` that holds an answer to its schema, else "none".

    `ask`: sends a request with these fields and returns the answer's text; it may raise an error with a `status`. Most
    servers ignore a field they do not know, so only an answer that no model would give shows that one works.
    """
    for name in ("response_format", "json_schema"):
        try:
            if json.loads(ask(FIELDS[name](PROBE)) or "") == {"zq7": "xv9"}:
                return name
        except ValueError:
            continue
        except RuntimeError as error:
            if getattr(error, "status", None) not in NOT_HERE:
                raise
    return "none"
