"""Request fields that restrict a server's answer: to one of some choices, or to JSON of a given schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Schema = Mapping[str, Any]


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _response_format(schema: Schema) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": schema}}}


# Both in the order they are tried.
STRUCTURED: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "structured_outputs": lambda choices: {"structured_outputs": {"choice": choices}},  # vLLM
    "guided_choice": lambda choices: {"guided_choice": choices},  # vLLM before 0.12
    "grammar": lambda choices: {  # llama.cpp
        "grammar": "root ::= " + " | ".join(json.dumps(c, ensure_ascii=False) for c in choices)
    },
    # OpenAI, and llama.cpp's chat
    "json_schema": lambda choices: _response_format(_object(choice={"type": "string", "enum": choices})),
}
SCHEMAS: dict[str, Callable[[Schema], dict[str, Any]]] = {
    "response_format": _response_format,  # OpenAI, vLLM; llama.cpp's chat
    "json_schema": lambda schema: {"json_schema": schema},  # llama.cpp's completions
}
# Most servers ignore a field they do not know, so only an answer that no model would give shows that one works.
WORDS = ["zq7", "xv9"]
PROBE: Schema = _object(zq7={"type": "string", "enum": ["xv9"]})
PROBE_ANSWER = {"zq7": "xv9"}
