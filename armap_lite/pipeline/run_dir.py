"""The folder of one run in one environment: its files, the configuration that it belongs to, counters and figures."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from armap_lite.llms import spec
from armap_lite.storage.former_names import current_names, current_repr
from armap_lite.storage.store import read_json, write_atomic

FORMAT = 2  # of the stage files: trajectories say what a transcript keeps of them
COUNTER_FILES = ("seconds.json", "answers.json")  # seconds of each planner; how a server answered
STAGE_FILES = ("trajectories.jsonl", "pairs.jsonl", "training.json", "plans.jsonl")


class RunDir:
    """`folder` holds all that the stages of one run write."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / name

    def claim(self, configuration: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        """Reserve the folder for `configuration`, because results of mixed ones could not be repeated.

        `defaults` of those settings that an earlier version did not note, for it had no other value.
        Raises ValueError if the folder holds results of another configuration, or of one that is not known.
        """
        ours = comparable({name: repr(value) for name, value in {"format": FORMAT, **configuration}.items()})
        file, way_out = self.path("run.json"), "take another folder (RUN_DIR in a notebook, OUT with make), or delete "
        found = [name for name in STAGE_FILES if self.path(name).exists()]
        if found and not file.is_file():
            said = f"{self.folder} holds {found[0]}, but no run.json that says how it was made"
            raise ValueError(f"{said}; {way_out}{found[0]}")
        # A notebook that failed before its stage made anything leaves its copy, and a run.json within `start_here`.
        left = (p for p in self.folder.rglob("*") if p.is_file() and p.name != file.name)
        if file.is_file() and any(path.relative_to(self.folder).parts[0] != "notebooks" for path in left):
            saved = read_json(file, f"{way_out}the one it is in")
            try:
                noted = comparable(saved)
            except (ValueError, TypeError, AttributeError, SyntaxError) as error:
                said = f"{file} is not as a run writes it ({error}); {way_out}the one it is in"
                raise ValueError(said) from error
            theirs = comparable({name: repr(value) for name, value in defaults.items()}) | noted
            different = [name for name in ours if ours[name] != theirs.get(name)]
            if different:
                made = "with " + ", ".join(f"{name}={theirs.get(name)}" for name in different)
                if "format" in different:
                    made = "by another version of armap-lite, whose files cannot be continued"
                elif missing := [name for name in different if name not in noted]:
                    made = f"by an earlier version of armap-lite, which did not note {', '.join(missing)}"
                raise ValueError(f"{self.folder} was made {made}; {way_out}this one")
        write_atomic(file, json.dumps(ours, indent=1))

    def counts(self, name: str) -> dict[str, Any]:
        """The counters in `name`, one of COUNTER_FILES; empty before the first count."""
        file = self.path(name)
        return read_json(file, "delete it, and counting starts anew") if file.is_file() else {}

    def add_counts(self, name: str, counts: Mapping[str, float]) -> None:
        """Add `counts` to the counters in `name`, which sum over all calls of the stages."""
        if counts:
            total = self.counts(name)
            total |= {key: round(total.get(key, 0) + n, 2) for key, n in counts.items()}
            write_atomic(self.path(name), json.dumps(total))

    def save_figure(self, figure: Figure, name: str) -> Figure:
        """Keep `figure` and its alternative text under figures/, for the report; returns it for display."""
        self.path("figures").mkdir(exist_ok=True)
        figure.savefig(self.path(f"figures/{name}.png"), dpi=110, bbox_inches="tight")
        write_atomic(self.path(f"figures/{name}.txt"), str(figure.get_label()))
        return figure


def comparable(saved: Mapping[str, str]) -> dict[str, str]:
    """The fields of a run.json, which hold what `repr` gives, by their present names, with its LLMs by identity."""
    saved = current_names(saved)
    saved |= {name: current_repr(saved[name]) for name in saved.keys() & {"planners", "reward", "training"}}
    models = {name: ast.literal_eval(saved[name]) for name in ("policy", "data_llm") if name in saved}
    return saved | {name: repr(model and spec.identity(model)) for name, model in models.items()}
