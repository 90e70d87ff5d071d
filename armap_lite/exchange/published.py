"""Rows of the published data sets, `{id, image?, conversations, output_1, output_2, preference}`, as preference pairs.

`conversations` is what was asked; an output is one turn or a list of turns `{from, value}`; `preference` (1 or 2) names
the better output; `<image>` marks a picture. The n-th mark of a row, outputs in order, is its n-th picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from armap_lite.trajectory import PreferencePair, Step, Task, Trajectory

MARK = "<image>"
ASKERS = ("human", "user", "system")  # everyone else acts


def read_published(rows: Iterable[dict[str, Any]] | Path | str, pictures: Path | str = ".") -> list[PreferencePair]:
    """The pairs of `rows` (or of a .json or .jsonl file of them), in order; `pictures`: the folder of the pictures.

    Rows that ask the same are one task, so that a split by task keeps them together. Raises ValueError, with the row's
    id, where a row is not as described.
    """
    return [_pair(row, Path(pictures)) for row in (_rows(Path(rows)) if isinstance(rows, (str, Path)) else rows)]


def _rows(file: Path) -> list[dict[str, Any]]:
    text = file.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.split("\n") if line.strip()]  # only this ends a line, not U+2028


def _pair(row: dict[str, Any], folder: Path) -> PreferencePair:
    name = str(row.get("id"))
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
        raise ValueError(f"row {name}: {error!r}; it needs conversations, output_1, output_2 and preference") from error
    except ValueError as error:
        raise ValueError(f"row {name}: {error}; repair the row or leave it out") from error
    key = hashlib.sha256((instruction or name).encode()).hexdigest()[:16]
    task = Task(key, "published", "train", instruction)
    sides = [_trajectory(task, asked, output) for output in outputs]
    same = [one == other for one, other in zip(*(side.actions for side in sides))]
    changed = same.index(False) if False in same else len(same)
    chosen, rejected = sides if better == 1 else sides[::-1]
    return PreferencePair(name, key, instruction, chosen, rejected, "published", changed)


def _turns(turns: Iterable[dict[str, str]], shown: Iterator[str]) -> Iterator[tuple[bool, str, str | None]]:
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
