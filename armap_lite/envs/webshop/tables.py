"""The shop's JSON files: word lists, templates, worked examples, and the tables of the made catalogue."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def table(name: str) -> dict[str, Any]:
    """The file `name`.json, a path in this folder."""
    return json.loads((resources.files(__package__) / f"{name}.json").read_text(encoding="utf-8"))


WORDS = table("words")
