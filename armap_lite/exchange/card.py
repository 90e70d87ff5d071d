"""The model card beside an exported reward model; its figures come from the files of the run."""

from __future__ import annotations

import ast
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Template

from armap_lite.reward.config import RewardConfig
from armap_lite.statistics import pair_metrics
from armap_lite.storage.assets import ASSETS
from armap_lite.storage.store import write_atomic


def write(exported: dict[str, Any], model: Path | str, out: Path | str) -> Path:
    """Write README.md to the folder `out`: `exported` is what `export.export` returned for `model`."""
    run, config = Path(model).parent, exported["config"]
    claimed, training = _read(run / "run.json"), _read(Path(model) / "training.json") or _read(run / "training.json")
    world = ast.literal_eval(claimed["env"]) if "env" in claimed else None
    licence = _licence(config.backbone)
    limit = config.max_tokens
    template = files("armap_lite.exchange").joinpath("model_card.txt").read_text(encoding="utf-8")
    text = Template(template, trim_blocks=True, keep_trailing_newline=True).render(
        licence_id=licence.lower() if licence else "unknown",
        title=f"Reward model for {world or 'agents'} on {Path(config.backbone).name}",
        facts={
            **_made_of(config, licence),
            **_learned_from(training, world),
            "seed": ast.literal_eval(claimed["seed"]) if "seed" in claimed else "not known",
            "pair accuracy": _accuracy(run),
            "numbers": f"fp32; within {exported['difference']:.1g} of the kit's scores on `example.json`",
        },
        limit=limit,
        head=limit - limit // 2,
        tail=limit // 2,
        vision=config.vision,
        bias=exported["bias"],
    )
    write_atomic(Path(out) / "README.md", text)
    return Path(out) / "README.md"


def _made_of(config: RewardConfig, licence: str | None) -> dict[str, str]:
    layers = f", its lower {config.num_layers} layers" if config.num_layers else ""
    merged = "; adapters are merged" if "lora" in config.trainable else ""
    return {
        "backbone": f"`{config.backbone}`{layers}",
        "licence of the backbone": licence or "not stated where it was loaded from; see its own page",
        "what learned": f"the head and `{config.trainable}`{merged}",
    }


def _learned_from(training: dict[str, Any], world: str | None) -> dict[str, str]:
    pairs = f"{training['train_pairs']:,} preference pairs" if "train_pairs" in training else "preference pairs"
    accuracy = "not measured"
    if "val_accuracy" in training:
        accuracy = f"{training['val_accuracy']:.3f}, {training['val_pairs']} pairs; used to choose the weights"
    return {
        "data": f"{pairs} of `{world}` (armap-lite, stages 1 and 2)" if world else f"{pairs}; run not known",
        "pair accuracy on held-out training tasks": accuracy,
    }


def _accuracy(run: Path) -> str:
    """On pairs of development tasks, which training did not see."""
    found = _read(run / "evaluation.json").get("reward_model")
    margins = _read(run / "margins.json")
    if not found and margins:
        gaps = [chosen - rejected for chosen, rejected in zip(margins["chosen"], margins["rejected"])]
        found = [pair_metrics(gaps, margins["task_ids"])]
    if not found:
        return "not measured"
    m = found[0]
    interval = f"{m['pair_accuracy']:.3f} (95 % interval {m['ci_low']:.3f} to {m['ci_high']:.3f})"
    return f"{interval}, {m['n_pairs']} pairs of {m['n_tasks']} development tasks"


def _licence(backbone: str) -> str | None:
    """An asset's licence, or that which a folder's own card states; None where nothing states one."""
    if backbone in ASSETS:
        return ASSETS[backbone].licence
    card = Path(backbone).expanduser() / "README.md"
    stated = re.search(r"^license: *(\S+)", card.read_text(encoding="utf-8"), re.MULTILINE) if card.is_file() else None
    return stated[1] if stated else None


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
