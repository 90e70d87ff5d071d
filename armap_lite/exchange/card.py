"""The model card beside an exported reward model; its figures come from the files of the run."""

from __future__ import annotations

import ast
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Template

from armap_lite.statistics import pair_metrics
from armap_lite.storage.assets import ASSETS
from armap_lite.storage.store import read_json, write_atomic


def write(exported: dict[str, Any], model: Path | str, out: Path | str) -> Path:
    """Write README.md to the folder `out`: `exported` is what `export.export` returned for `model`."""
    run, config = Path(model).parent, exported["config"]
    written = _read(run / "run.json")
    template = files("armap_lite.exchange").joinpath("model_card.txt").read_text(encoding="utf-8")
    text = Template(template, trim_blocks=True, keep_trailing_newline=True).render(
        **exported,
        run={name: ast.literal_eval(written[name]) for name in ("env", "seed") if name in written},
        training=_read(Path(model) / "training.json") or _read(run / "training.json"),
        accuracy=_accuracy(run),
        backbone=Path(config.backbone).name,
        licence=_licence(config.backbone),
        limit=config.max_tokens,
    )
    write_atomic(Path(out) / "README.md", text)
    return Path(out) / "README.md"


def _accuracy(run: Path) -> dict[str, float] | None:
    """Pair accuracy on pairs of development tasks, which training did not see; None if it was not measured."""
    found = _read(run / "evaluation.json").get("reward_model")
    margins = _read(run / "margins.json")
    if not found and margins:
        gaps = [chosen - rejected for chosen, rejected in zip(margins["chosen"], margins["rejected"])]
        found = [pair_metrics(gaps, margins["task_ids"])]
    return found[0] if found else None


def _licence(backbone: str) -> str | None:
    """The licence of an asset, or that stated in a folder's own card; None if nothing states one."""
    if backbone in ASSETS:
        return ASSETS[backbone].licence
    card = Path(backbone).expanduser() / "README.md"
    stated = re.search(r"^license: *(\S+)", card.read_text(encoding="utf-8"), re.MULTILINE) if card.is_file() else None
    return stated[1] if stated else None


def _read(file: Path) -> dict[str, Any]:
    return read_json(file, "delete it, and run its notebook again") if file.is_file() else {}
