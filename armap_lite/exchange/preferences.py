"""Preference data of any known format as preference pairs. The columns tell which format it is.

| format | columns |
|---|---|
| stage 2 of this package | Parquet: those of `PreferencePair`, `chosen` and `rejected` as JSON text; JSONL: `pair` |
| published rows | `conversations`, `output_1`, `output_2`, `preference`, `image`: see `published.py` |
| TRL | `chosen`, `rejected`: texts or lists of messages; `prompt`, `system` |

Instead of `prompt`, TRL rows may have `instruction`, `question` or `input`. Without any of them, what both sides begin
with is the prompt.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from armap_lite.exchange.published import read_published
from armap_lite.trajectory import PreferencePair

Row = dict[str, Any]
CELL = 2**31 - 1  # characters a cell of CSV may have; csv's own limit is 131,072
SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
ACTS = ("assistant", "model", "gpt")  # roles of the agent; all others tell it something
ASKED = ("prompt", "instruction", "question", "input")  # columns of TRL-like rows that hold what was asked
READ = {"id", "chosen", "rejected", "system", "prompt"}
EXPECTED = (
    "'chosen' and 'rejected' (TRL), 'conversations', 'output_1', 'output_2' and 'preference' (published rows), "
    "or what stage 2 writes"
)


def read(file: Path) -> list[PreferencePair]:
    """The pairs in `file`, in order; paths of pictures in published rows are relative to its folder.

    Raises ValueError with the file's name: for a format that is not known, and, with the row's id, where a row is not
    as its format asks.
    """
    try:
        return _pairs(file)
    except UnicodeError as error:
        raise ValueError(f"{file} is not UTF-8 ({error}); convert it") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _pairs(file: Path) -> list[PreferencePair]:
    rows = _rows(file)
    columns = {column: None for row in rows for column in row}  # in order
    if not rows:
        raise ValueError("it holds no rows; expected at least a pair of each of two tasks")
    if columns.keys() >= {"conversations", "output_1", "output_2", "preference"}:
        return read_published([{"id": number, **row} for number, row in enumerate(rows, 1)], file.parent)
    if "pair" in columns:  # stage 2 also writes lines about what it could not make
        return _each([row for row in rows if "pair" in row], lambda row: PreferencePair.from_json(row["pair"]))
    if columns.keys() >= {"task_id", "instruction", "chosen", "rejected"}:
        return _each(rows, _own)
    if columns.keys() >= {"chosen", "rejected"}:
        read_here = READ if all(row.get("prompt") for row in rows) else READ | set(ASKED)
        if unread := [column for column in columns if column not in read_here]:
            print(f"{file}: columns that are not read: {', '.join(unread)}", file=sys.stderr)
        return read_published(_each(rows, _published))
    raise ValueError(f"columns {', '.join(columns)}; expected {EXPECTED}; rename the columns")


def _rows(file: Path) -> list[Row]:
    if file.suffix not in SUFFIXES:
        raise ValueError(f"the name of a file of pairs ends with {', '.join(SUFFIXES)}; convert it to one")
    if file.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(file).to_pylist()
    if file.suffix == ".csv":
        return _table(file)
    text = file.read_text(encoding="utf-8-sig")
    try:
        # Only "\n" ends a line, not U+2028.
        rows = json.loads(text) if file.suffix == ".json" else [*map(json.loads, filter(str.strip, text.split("\n")))]
    except ValueError as error:
        raise ValueError(f"it is not {file.suffix[1:].upper()}: {error}; write it again") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"it is no list of rows; expected JSON objects with {EXPECTED}")
    return rows


def _table(file: Path) -> list[Row]:
    before = csv.field_size_limit(CELL)
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines, restkey=""))
    except csv.Error as error:
        raise ValueError(f"it is not CSV: {error}; write it again") from error
    finally:
        csv.field_size_limit(before)
    for number, row in enumerate(rows, 1):
        if "" in row:
            raise ValueError(f"row {number} has more cells than there are columns; put cells with commas into quotes")
    return [{name: _cell(text) for name, text in row.items()} for row in rows]


def _cell(text: str) -> Any:
    """A cell of a CSV file, which holds messages as JSON text."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return text
    return value if isinstance(value, list) else text


def _each(rows: list[Row], convert: Callable[[Row], Any]) -> list[Any]:
    """`convert` of each row, with the row's id in any error."""
    made = []
    for number, row in enumerate(rows, 1):
        try:
            made.append(convert({"id": number, **row}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"row {row.get('id', number)}: {said}; repair the row or leave it out") from error
    return made


def _own(row: Row) -> PreferencePair:
    """A row of the Parquet that stage 2 writes."""
    sides = {side: json.loads(row[side]) for side in ("chosen", "rejected")}
    return PreferencePair.from_json({**row, **sides})


def _published(row: Row) -> Row:
    """A TRL row as a published one."""
    prompt = _messages(row, "prompt", "user")
    if not prompt:
        prompt = [turn for name in ASKED[1:] for turn in _messages(row, name, "user")]
        prompt = [{"from": "user", "value": "\n".join(turn["value"] for turn in prompt)}] if prompt else []
    system = _messages(row, "system", "user")
    prompt = system + prompt if prompt[: len(system)] != system else prompt
    chosen, rejected = (_messages(row, side, "assistant") for side in ("chosen", "rejected"))
    if not chosen or not rejected:
        raise ValueError("'chosen' and 'rejected' have to be a text or a list of messages, and neither may be empty")
    if _words(chosen) == _words(rejected):
        raise ValueError("'chosen' and 'rejected' are the same, but for white space")
    if isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
        shared, chosen, rejected = _split_texts(chosen, rejected) if not prompt else ([], chosen, rejected)
    else:
        n = _common(chosen, rejected)
        shared, chosen, rejected = chosen[:n], chosen[n:], rejected[n:]
    asked = shared if shared[: len(prompt)] == prompt else prompt + shared
    first = next((i for i, turn in enumerate(asked) if turn["from"] == "assistant"), len(asked))
    opening = "\n".join(turn["value"] for turn in asked[:first])  # a system prompt alone would make all rows one task
    asked = [{"from": "user", "value": opening}, *asked[first:]]
    return {"id": row["id"], "conversations": asked, "output_1": chosen, "output_2": rejected, "preference": 1}


def _messages(row: Row, column: str, who: str) -> list[Row]:
    """`column`, a text that `who` says or TRL's messages (`role`, `content`), as turns of a published row."""
    value = row.get(column)
    if value is None or value == "" or value == []:
        return []
    if isinstance(value, str):
        return [{"from": who, "value": value}]
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise ValueError(f"{column!r} is {value!r:.40} ({type(value).__name__}), neither a text nor a list of messages")
    for message in value:
        if missing := [name for name in ("role", "content") if message.get(name) is None]:
            raise ValueError(f"in {column!r}, {missing[0]!r} of a message is missing or empty")
    return [
        {"from": "assistant" if message["role"] in ACTS else "user", "value": _text(message["content"])}
        for message in value
    ]


def _words(turns: list[Row]) -> list[tuple[str, list[str]]]:
    return [(turn["from"], turn["value"].split()) for turn in turns]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError(f"'content' of a message is {content!r:.40}, neither a text nor a list of parts")
    if odd := [part["type"] for part in content if part["type"] != "text"]:
        raise ValueError(f"a message holds a part of type {odd[0]!r}; pictures are read from published rows alone")
    return "\n".join(part["text"] for part in content)


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def _split_texts(chosen: list[Row], rejected: list[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """What two texts begin with in common, up to a line's or a word's end, as the prompt; and what is left of each."""
    texts = [turns[0]["value"] for turns in (chosen, rejected)]
    prefix = texts[0][: _common(*texts)]
    end = (prefix.rfind("\n") if "\n" in prefix else prefix.rfind(" ")) + 1
    one, other = ([{"from": "assistant", "value": text[end:]}] for text in texts)
    return [{"from": "user", "value": prefix[:end].strip()}], one, other
