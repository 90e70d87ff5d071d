"""What a server's LLM counts about its answers, for the report: `answers.json` of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COUNTS = ("parsed", "misses", "fallbacks", "unfinished")  # see `ServerLM`


def taken(lm: Any) -> dict[str, int]:
    """What `lm` has counted since the last call; empty where it had nothing to count, as an LLM on this machine."""
    counts = {name: getattr(lm, name, 0) for name in COUNTS}
    if not any(counts.values()):
        return {}
    for name in counts:
        setattr(lm, name, 0)
    return {name: n for name, n in counts.items() if n or name != "unfinished"}


def misses(counts: Mapping[str, int]) -> str:
    """`counts` in words: answers of a server that is not held to the admissible actions."""
    read, missed, drawn, unfinished = (counts.get(name, 0) for name in COUNTS)
    said = f"{read} actions read out of free text, {missed} answers not admissible, {drawn} actions drawn instead"
    return said + (f", {unfinished} texts empty, as the thought before them was cut off" if unfinished else "")
