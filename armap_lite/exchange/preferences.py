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

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from armap_lite.storage.store import write_atomic
from armap_lite.trajectory import PreferencePair, Step, Task, Trajectory

Row = dict[str, Any]
Turn = tuple[bool, str, str | None]  # whether the agent speaks, text, picture
SUFFIXES = (".jsonl", ".json", ".parquet")
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
        return convert(_rows(file), file)
    except UnicodeError as error:
        raise ValueError(f"{file} is not UTF-8 ({error}); convert it") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def convert(rows: list[Row], file: Path) -> list[PreferencePair]:
    """The pairs of `rows`, in order; `file`: where they come from. Raises ValueError as `read` does.

    Published rows that ask the same are one task, so that a split by task keeps them together.
    """
    columns = {column: None for row in rows for column in row}  # in order
    if not rows:
        raise ValueError("it holds no rows; expected at least a pair of each of two tasks")
    if columns.keys() >= {*PUBLISHED}:
        return _each(rows, lambda row: _published_pair(row, file.parent))
    if "pair" in columns:  # stage 2 also writes lines about what it could not make
        return _each([row for row in rows if "pair" in row], lambda row: PreferencePair.from_json(row["pair"]))
    if columns.keys() & {"counts", "skipped"}:
        raise ValueError(
            f"stage 2 made no pair from {len(rows)} trajectories, so there is nothing to train on; "
            "collect more tasks or samples, or take a stronger policy or data LLM"
        )
    if columns.keys() >= {"task_id", "instruction", "chosen", "rejected"}:
        sides = ("chosen", "rejected")
        return _each(rows, lambda row: PreferencePair.from_json(row | {side: json.loads(row[side]) for side in sides}))
    if columns.keys() >= {"chosen", "rejected"}:
        read_here = READ if all(row.get("prompt") for row in rows) else READ | set(ASKED)
        if unread := [column for column in columns if column not in read_here]:
            print(f"{file}: columns that are not read: {', '.join(unread)}", file=sys.stderr)
        return _each(rows, _trl_pair)
    raise ValueError(f"columns {', '.join(columns)}; expected {EXPECTED}; rename the columns")


def to_parquet(pairs: Sequence[PreferencePair], path: Path) -> None:
    """The pairs as a table; `chosen` and `rejected` are JSON text, the rest as in `PreferencePair`.

    A file that holds exactly these pairs is left alone.
    """
    import pandas as pd

    rows = [pair.to_json() for pair in pairs]
    table = pd.DataFrame([row | {side: json.dumps(row[side]) for side in ("chosen", "rejected")} for row in rows])
    data = table.to_parquet(index=False)
    if not path.is_file() or path.read_bytes() != data:
        write_atomic(path, data)


def _rows(file: Path) -> list[Row]:
    if file.suffix not in SUFFIXES:
        raise ValueError(f"the name of a file of pairs ends with {', '.join(SUFFIXES)}; convert it to one")
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(file).to_pylist()
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


def _published_pair(row: Row, folder: Path) -> PreferencePair:
    try:
        outputs = [[row[side]] if isinstance(row[side], dict) else row[side] for side in ("output_1", "output_2")]
        images = row.get("image") or []
        images = [images] if isinstance(images, str) else images
        marks = sum(turn["value"].count(MARK) for turns in (row["conversations"], *outputs) for turn in turns)
        if len(images) == 1:  # one file for the row: each mark shows it
            images = images * max(1, marks)
        if len(images) != marks:
            raise ValueError(f"it has {len(images)} pictures for {marks} marks {MARK}")
        if isinstance(row["preference"], bool) or row["preference"] not in (1, 2):
            raise ValueError(f"its preference is {row['preference']!r}, not 1 or 2")
        shown = iter([str(folder / image) for image in images])
        asked, *sides = [list(_turns(turns, shown)) for turns in (row["conversations"], *outputs)]
        chosen, rejected = sides if row["preference"] == 1 else sides[::-1]
        return _pair(row, asked, chosen, rejected)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{error!r}; it needs conversations, output_1, output_2 and preference") from error


def _turns(turns: Iterable[Row], shown: Iterator[str]) -> Iterator[Turn]:
    for turn in turns:
        text = turn["value"]
        if text.count(MARK) > 1:
            raise ValueError(f"one turn has {text.count(MARK)} marks {MARK}, and a turn shows one picture")
        yield turn["from"] not in ASKERS, text.replace(MARK, "").strip(), next(shown) if MARK in text else None


def _trl_pair(row: Row) -> PreferencePair:
    prompt = _messages(row, "prompt", False)
    if not prompt:
        said = [text for name in ASKED[1:] for _, text, _ in _messages(row, name, False)]
        prompt = [(False, "\n".join(said), None)] if said else []
    system = _messages(row, "system", False)
    prompt = system + prompt if prompt[: len(system)] != system else prompt
    chosen, rejected = (_messages(row, side, True) for side in ("chosen", "rejected"))
    if not chosen or not rejected:
        raise ValueError("'chosen' and 'rejected' have to be a text or a list of messages, and neither may be empty")
    if not (isinstance(row["chosen"], str) and isinstance(row["rejected"], str)):
        n = _common(chosen, rejected)
    elif prompt:
        n = 0
    else:  # the common beginning of two texts, up to the end of a line or word, is the prompt
        texts = row["chosen"], row["rejected"]
        prefix = texts[0][: _common(*texts)]
        end = (prefix.rfind("\n") if "\n" in prefix else prefix.rfind(" ")) + 1
        prompt, n = [(False, prefix[:end], None)], 0
        sides: list[list[Turn]] = [[(True, text[end:], None)] for text in texts]
        chosen, rejected = sides
    shared = chosen[:n]
    asked = shared if shared[: len(prompt)] == prompt else prompt + shared
    first = next((i for i, (acts, *_) in enumerate(asked) if acts), len(asked))
    opening = "\n".join(text for _, text, _ in asked[:first])  # a system prompt alone would make all rows one task
    return _pair(row, [(False, opening, None), *asked[first:]], chosen[n:], rejected[n:])


def _messages(row: Row, column: str, acts: bool) -> list[Turn]:
    """`column`, one text or TRL's messages (`role`, `content`); `acts`: whether a text is the agent's."""
    value = row.get(column)
    if value is None or value == "" or value == []:
        return []
    if isinstance(value, str):
        return [(acts, value, None)]
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise ValueError(f"{column!r} is {value!r:.40} ({type(value).__name__}), neither a text nor a list of messages")
    for message in value:
        if missing := [name for name in ("role", "content") if message.get(name) is None]:
            raise ValueError(f"in {column!r}, {missing[0]!r} of a message is missing or empty")
    return [(message["role"] in ACTS, _text(message["content"]), None) for message in value]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if odd := [part["type"] for part in content if part["type"] != "text"]:
        raise ValueError(f"a message holds a part of type {odd[0]!r}; pictures are read from published rows alone")
    return "\n".join(part["text"] for part in content)


def _pair(row: Row, asked: list[Turn], chosen: list[Turn], rejected: list[Turn]) -> PreferencePair:
    """Rows that ask the same are one task."""
    if [(acts, text.split(), *shown) for acts, text, *shown in chosen] == [
        (acts, text.split(), *shown) for acts, text, *shown in rejected
    ]:
        raise ValueError("both sides are the same, but for white space")
    name, instruction = str(row["id"]), asked[0][1].strip()
    key = hashlib.sha256((instruction or name).encode()).hexdigest()[:16]
    task = Task(key, "published", "train", instruction)
    one, other = (_trajectory(task, asked, side) for side in (chosen, rejected))
    return PreferencePair(name, key, instruction, one, other, "published", _common(one.actions, other.actions))


def _trajectory(task: Task, asked: list[Turn], output: list[Turn]) -> Trajectory:
    """What the agent says is an action, what comes back its observation; what comes before any action, the start."""
    start, picture = "", asked[0][2]
    steps: list[Step] = []
    for acts, text, shown in [*asked[1:], *output]:
        text = text.strip()
        if acts or (shown and (steps[-1].picture if steps else picture)):  # a second picture needs its own step
            steps.append(Step(text, "", shown))
        elif steps:
            last = steps[-1]
            steps[-1] = Step(last.action, f"{last.observation}\n{text}".strip(), shown or last.picture)
        else:
            start, picture = f"{start}\n{text}".strip(), shown or picture
    return Trajectory(task, start, tuple(steps), True, picture=picture)


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
