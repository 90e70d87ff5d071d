"""Fields of a request that not every server knows: they restrict its answer, or ask how probable given text is."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
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
SCHEMAS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "response_format": _response_format,  # OpenAI, vLLM; llama.cpp's chat
    "json_schema": lambda schema: {"json_schema": schema},  # llama.cpp's completions
}
# Most servers ignore a field they do not know, so only an answer that no model would give shows that one works.
WORDS = ["zq7", "xv9"]
PROBE: Mapping[str, Any] = _object(zq7={"type": "string", "enum": ["xv9"]})
PROBE_ANSWER = {"zq7": "xv9"}

SCORING = ("prompt_logprobs",)  # log-probabilities of given text, from vLLM; llama.cpp has none
Scored = list[tuple[str, float]]  # tokens with their log-probabilities; nan for the first, which nothing precedes


class NoFirstTokenError(ValueError):
    """Texts differ from their first token on, whose log-probability the server does not know."""


def given(data: Any, count: int) -> list[Scored]:
    """The tokens of each of `count` texts sent as prompts, with their log-probabilities.

    Raises ValueError where `data` does not hold a number for each token, but for the first.
    """
    try:
        choices = sorted(data["choices"], key=lambda choice: choice["index"])
        paths = [[_token(entry) for entry in choice["prompt_logprobs"]] for choice in choices]
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(str(data)) from error
    if len(paths) != count:
        raise ValueError(f"{len(paths)} answers to {count} texts")
    for token, p in (pair for path in paths for pair in path[1:]):
        if math.isnan(p) or p == math.inf:
            raise ValueError(f"the log-probability {p} of {token!r}")
    return paths


def _token(entry: Any) -> tuple[str, float]:
    if entry is None:
        return "", math.nan
    [(name, found)] = entry.items()
    return name, float(found["logprob"])


def weights(paths: Sequence[Scored]) -> list[float]:
    """The log-probability of each text from where they first differ: up to a constant, that of the whole text.

    So a prompt's last token may merge with the first of what follows. Raises NoFirstTokenError where the texts may
    differ from their first token on, which has no name and no number.
    """
    start = 0
    for column in zip(*([token for token, _ in path] for path in paths)):
        if len(set(column)) > 1 or "\ufffd" in column[0]:  # part of a character: other bytes look the same
            break
        start += 1
    sums = [math.fsum(p for _, p in path[start:]) for path in paths]
    if any(map(math.isnan, sums)) or (start == 1 and not paths[0][0][0]):
        raise NoFirstTokenError("tells no log-probability of a text's first token")
    return sums
