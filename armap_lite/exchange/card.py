"""The model card beside an exported reward model; its figures come from the files of the run."""

import ast
import hashlib
import re
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Template

from armap_lite import reward
from armap_lite.exchange import preferences
from armap_lite.reward import RewardConfig
from armap_lite.statistics import pair_metrics
from armap_lite.storage.assets import ASSETS
from armap_lite.storage.store import read_json, write_atomic


def write(exported: dict[str, Any], model: Path | str, out: Path | str) -> Path:
    """Write README.md to the folder `out`: `exported` is what `export.export` returned for `model`."""
    return _write("model_card.txt", Path(model), Path(out), **exported, accuracy=_accuracy(Path(model).parent))


def write_low_rank(model: Path | str, out: Path | str, rank: int) -> Path:
    """Write README.md to `out`, where `low_rank.shrink` wrote `model`. Both rank the development pairs anew."""
    model, out = Path(model), Path(out)
    pairs = model.parent / "dev_pairs.jsonl"
    return _write(
        "low_rank_card.txt",
        model,
        out,
        config=RewardConfig.read(out / "reward.json"),
        rank=rank,
        accuracy=_ranked(out, pairs),
        whole=_ranked(model, pairs),
        sha256=hashlib.sha256((out / "weights.safetensors").read_bytes()).hexdigest(),
        commit=_commit(),
    )


def _write(template: str, model: Path, out: Path, config: RewardConfig, **facts: Any) -> Path:
    run = model.parent
    written = _read(run / "run.json")
    known = {name: ast.literal_eval(written[name]) for name in ("env", "profile", "seed") if name in written}
    text = files("armap_lite.exchange").joinpath(template).read_text(encoding="utf-8")
    rendered = Template(text, trim_blocks=True, keep_trailing_newline=True).render(
        **facts,
        config=config,
        run=known,
        training=_read(model / "training.json") or _read(run / "training.json"),
        backbone=Path(config.backbone).name,
        licence=_licence(config.backbone),
        limit=config.max_tokens,
    )
    write_atomic(out / "README.md", rendered)
    return out / "README.md"


def _ranked(model: Path, pairs: Path) -> dict[str, float] | None:
    """Pair accuracy of `model` on the file `pairs`; None where there is none."""
    if not pairs.is_file() or not (some := preferences.read(pairs)):
        return None
    loaded, texts = reward.load(model), [pair.instruction for pair in some]
    chosen, rejected = (loaded.score(texts, [getattr(p, side) for p in some]) for side in ("chosen", "rejected"))
    return pair_metrics(chosen - rejected, [pair.task_id for pair in some])


def _commit() -> str | None:
    """The commit of this code, where it is a checkout."""
    command, here = ["git", "rev-parse", "HEAD"], Path(__file__).resolve().parent
    try:
        return subprocess.run(command, cwd=here, capture_output=True, encoding="utf-8", check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _accuracy(run: Path) -> dict[str, float] | None:
    """Pair accuracy on pairs of development tasks, which training did not see; None if it was not measured."""
    margins = _read(run / "margins.json")
    return pair_metrics(np.subtract(margins["chosen"], margins["rejected"]), margins["task_ids"]) if margins else None


def _licence(backbone: str) -> str | None:
    """The licence of an asset, or that stated in a folder's own card; None if nothing states one."""
    if backbone in ASSETS:
        return ASSETS[backbone].licence
    card = Path(backbone).expanduser() / "README.md"
    stated = re.search(r"^license: *(\S+)", card.read_text(encoding="utf-8"), re.MULTILINE) if card.is_file() else None
    return stated[1] if stated else None


def _read(file: Path) -> dict[str, Any]:
    return read_json(file, "delete it, and run its notebook again") if file.is_file() else {}
