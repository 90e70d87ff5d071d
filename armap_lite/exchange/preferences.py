"""Preference data of any known format as preference pairs. The columns tell which format it is.

| format | columns |
|---|---|
| stage 2 of this package | Parquet: those of `PreferencePair`, `chosen` and `rejected` as JSON text; JSONL: `pair` |
| published rows | `conversations`, `output_1`, `output_2`, `preference`, `image` |
| TRL | `chosen`, `rejected`: texts or lists of messages; `prompt`, `system` |

In published rows, `conversations` is what was asked; an output is one turn or a list of turns `{from, value}`;
`preference` (1 or 2) names the better output; `<image>` marks a picture, the n-th mark the n-th picture of the row.
Instead of `prompt`, TRL rows may have `instruction`, `question` or `input`. Without any of them, what both sides begin
with is the prompt.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from armap_lite.trajectory import PreferencePair, Step, Task, Trajectory

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
MARK = "<image>"
ASKERS = ("human", "user", "system")  # who speaks in published rows; everyone else acts
ACTS = ("assistant", "model", "gpt")  # TRL's roles of the agent; all others tell it something
ASKED = ("prompt", "instruction", "question", "input")  # columns of TRL-like rows that hold what was asked
READ = {"id", "chosen", "rejected", "system", "prompt"}
PUBLISHED = ("conversations", "output_1", "output_2", "preference")
EXPECTED = (
    "'chosen' and 'rejected' (TRL), 'conversations', 'output_1', 'output_2' and 'preference' (published rows), "
    "or what stage 2 writes"
)


def read(file: Path) -> list[PreferencePair]:
    """The pairs in `file`, in order; paths of pictures in published rows are relative to its folder.

    Raises FileNotFoundError where there is none, ValueError with the file's name: for an unknown format, for a file
    without pairs, and, with the row's id, for a row that is not as its format asks.
    """
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise FileNotFoundError(f"{file} {what}; expected a file of preference pairs ({', '.join(SUFFIXES)}): name one")
    try:
        return _pairs(_rows(file), file)
    except UnicodeError as error:
        raise ValueError(f"{file} is not UTF-8 ({error}); convert it") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def read_published(rows: Iterable[Row], pictures: Path | str = ".") -> list[PreferencePair]:
    """The pairs of published `rows`, in order; `pictures`: the folder of their pictures.

    Rows that ask the same are one task, so that a split by task keeps them together. Raises ValueError, with the row's
    id, for a row that is not as described.
    """
    return _each(rows, functools.partial(_published_pair, folder=Path(pictures)))


def _pairs(rows: list[Row], file: Path) -> list[PreferencePair]:
    columns = {column: None for row in rows for column in row}  # in order
    if not rows:
        raise ValueError("it holds no rows; expected at least a pair of each of two tasks")
    if columns.keys() >= {*PUBLISHED}:
        return read_published(rows, file.parent)
    if "pair" in columns:  # stage 2 also writes lines about what it could not make
        return _each([row for row in rows if "pair" in row], lambda row: PreferencePair.from_json(row["pair"]))
    if columns.keys() & {"counts", "skipped"}:
        raise ValueError(
            f"stage 2 made no pair from {len(rows)} trajectories, so there is nothing to train on; "
            "collect more tasks or samples, or take a stronger policy or data LLM"
        )
    if columns.keys() >= {"task_id", "instruction", "chosen", "rejected"}:
        return _each(rows, _parquet_pair)
    if columns.keys() >= {"chosen", "rejected"}:
        read_here = READ if all(row.get("prompt") for row in rows) else READ | set(ASKED)
        if unread := [column for column in columns if column not in read_here]:
            print(f"{file}: columns that are not read: {', '.join(unread)}", file=sys.stderr)
        return _each(rows, lambda row: _published_pair(_published(row)))
    raise ValueError(f"columns {', '.join(columns)}; expected {EXPECTED}; rename the columns")


def _rows(file: Path) -> list[Row]:
    if file.suffix not in SUFFIXES:
        raise ValueError(f"the name of a file of pairs ends with {', '.join(SUFFIXES)}; convert it to one")
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(file).to_pylist()
        if file.suffix == ".csv":
            import pandas as pd

            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always", pd.errors.ParserWarning)
                table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
            if any(issubclass(one.category, pd.errors.ParserWarning) for one in told):
                print(f"{file}: a row has more cells than the header has names; they are not read", file=sys.stderr)
            return [{str(name): _cell(text) for name, text in row.items()} for row in table.to_dict("records")]
        text = file.read_text(encoding="utf-8-sig")
        # Only "\n" ends a line, not U+2028.
        rows = json.loads(text) if file.suffix == ".json" else [*map(json.loads, filter(str.strip, text.split("\n")))]
    except UnicodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not {file.suffix[1:].upper()}: {str(error).strip()}; write it again") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"it is no list of rows; expected JSON objects with {EXPECTED}")
    return rows


def _cell(text: str) -> Any:
    """A cell of a CSV file, which holds messages as JSON text."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return text
    return value if isinstance(value, list) else text


def _each(rows: Iterable[Row], convert: Callable[[Row], PreferencePair]) -> list[PreferencePair]:
    """`convert` of each row, with the row's id in any error."""
    made = []
    for number, row in enumerate(rows, 1):
        try:
            made.append(convert({"id": number, **row}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"row {row.get('id', number)}: {said}; repair the row or leave it out") from error
    return made


def _parquet_pair(row: Row) -> PreferencePair:
    """A row of the Parquet that stage 2 writes."""
    return PreferencePair.from_json({**row, **{side: json.loads(row[side]) for side in ("chosen", "rejected")}})


# Published rows.


def _published_pair(row: Row, folder: Path = Path()) -> PreferencePair:
    try:
        asked, outputs = row["conversations"], [row["output_1"], row["output_2"]]
        outputs = [[output] if isinstance(output, dict) else output for output in outputs]
        images = row.get("image") or []
        images = [images] if isinstance(images, str) else images
        marks = sum(turn["value"].count(MARK) for turn in [*asked, *outputs[0], *outputs[1]])
        if len(images) == 1:  # one file for the row: each mark shows it
            images = images * max(1, marks)
        if len(images) != marks:
            raise ValueError(f"it has {len(images)} pictures for {marks} marks {MARK}")
        better = {"1": 1, "2": 2}.get(row["preference"], row["preference"])  # CSV holds texts alone
        if isinstance(better, bool) or better not in (1, 2):
            raise ValueError(f"its preference is {row['preference']!r}, not 1 or 2")
        shown = iter([str(folder / image) for image in images])
        asked, *outputs = [list(_turns(turns, shown)) for turns in (asked, *outputs)]
        if len({tuple((acts, *text.split(), shown) for acts, text, shown in output) for output in outputs}) == 1:
            raise ValueError("its outputs are the same, but for white space")
        instruction = asked[0][1]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{error!r}; it needs conversations, output_1, output_2 and preference") from error
    name = str(row["id"])
    key = hashlib.sha256((instruction or name).encode()).hexdigest()[:16]
    task = Task(key, "published", "train", instruction)
    sides = [_trajectory(task, asked, output) for output in outputs]
    chosen, rejected = sides if better == 1 else sides[::-1]
    changed_at = _common(chosen.actions, rejected.actions)
    return PreferencePair(name, key, instruction, chosen, rejected, "published", changed_at)


def _turns(turns: Iterable[Row], shown: Iterator[str]) -> Iterator[tuple[bool, str, str | None]]:
    """(whether the agent speaks, text, picture) of each turn."""
    for turn in turns:
        text = turn["value"]
        if text.count(MARK) > 1:
            raise ValueError(f"one turn has {text.count(MARK)} marks {MARK}, and a turn shows one picture")
        picture = next(shown) if MARK in text else None
        yield turn["from"] not in ASKERS, text.replace(MARK, "").strip(), picture


def _trajectory(task: Task, asked: list[tuple], output: list[tuple]) -> Trajectory:
    """What the agent says is an action, what comes back its observation; what comes before any action, the start."""
    start, picture = "", asked[0][2]
    steps: list[Step] = []
    for acts, text, shown in [*asked[1:], *output]:
        if acts or (shown and (steps[-1].picture if steps else picture)):  # a second picture needs its own step
            steps.append(Step(text, "", shown))
        elif steps:
            last = steps[-1]
            steps[-1] = Step(last.action, f"{last.observation}\n{text}".strip(), shown or last.picture)
        else:
            start, picture = f"{start}\n{text}".strip(), shown or picture
    return Trajectory(task, start, tuple(steps), True, picture=picture)


# TRL's rows.


def _published(row: Row) -> Row:
    """A TRL row as a published one."""
    prompt = _messages(row, "prompt", "user")
    if not prompt:
        said = [turn["value"] for name in ASKED[1:] for turn in _messages(row, name, "user")]
        prompt = [{"from": "user", "value": "\n".join(said)}] if said else []
    system = _messages(row, "system", "user")
    prompt = system + prompt if prompt[: len(system)] != system else prompt
    chosen, rejected = (_messages(row, side, "assistant") for side in ("chosen", "rejected"))
    if not chosen or not rejected:
        raise ValueError("'chosen' and 'rejected' have to be a text or a list of messages, and neither may be empty")
    words = [[(turn["from"], turn["value"].split()) for turn in turns] for turns in (chosen, rejected)]
    if words[0] == words[1]:
        raise ValueError("'chosen' and 'rejected' are the same, but for white space")
    if not (isinstance(row["chosen"], str) and isinstance(row["rejected"], str)):
        n = _common(chosen, rejected)
        shared, chosen, rejected = chosen[:n], chosen[n:], rejected[n:]
    elif prompt:
        shared = []
    else:
        shared, chosen, rejected = _split_texts(row["chosen"], row["rejected"])
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
    return [{"from": "assistant" if m["role"] in ACTS else "user", "value": _text(m["content"])} for m in value]


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


def _split_texts(chosen: str, rejected: str) -> tuple[list[Row], list[Row], list[Row]]:
    """The common beginning of two texts, up to the end of a line or word, as the prompt; and what is left of each."""
    prefix = chosen[: _common(chosen, rejected)]
    end = (prefix.rfind("\n") if "\n" in prefix else prefix.rfind(" ")) + 1
    one, other = ([{"from": "assistant", "value": text[end:]}] for text in (chosen, rejected))
    return [{"from": "user", "value": prefix[:end].strip()}], one, other
