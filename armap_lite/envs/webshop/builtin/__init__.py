"""The shop that ships with the kit: products, texts and pictures made from the tables in this folder's JSON files."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def table(name: str) -> dict[str, Any]:
    """The tables of the file `name`.json in this folder."""
    return json.loads((resources.files(__name__) / f"{name}.json").read_text(encoding="utf-8"))


def sources() -> bytes:
    """Code and tables of this folder: what a made catalogue depends on."""
    files = sorted((file for file in resources.files(__name__).iterdir() if file.is_file()), key=lambda file: file.name)
    return b"".join(file.read_bytes() for file in files)
