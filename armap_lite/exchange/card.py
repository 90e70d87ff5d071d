"""The model card that lies beside an exported reward model; its figures come from the files of the run."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from armap_lite.reward.config import RewardConfig
from armap_lite.statistics import pair_metrics
from armap_lite.storage.assets import ASSETS
from armap_lite.storage.store import write_atomic

CARD = """---
library_name: transformers
pipeline_tag: text-classification
license: {licence_id}
tags: [reward-model, armap]
---
# {title}

A reward model after ARMAP ([arXiv 2502.12130](https://arxiv.org/abs/2502.12130)), trained with armap-lite: one number
for an instruction and a trajectory of an agent; higher is better. It learned from preference pairs that were made
without human labels and without the environment's score. Only differences between scores of one instruction mean
something; a score is no probability.

| | |
|---|---|
{facts}

## Score a trajectory

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForSequenceClassification.from_pretrained(FOLDER)
ids = tokenizer(text, verbose=False)["input_ids"]
ids = ids if len(ids) <= {limit} else ids[:{head}] + ids[-{tail}:]
print(model(torch.tensor([ids])).logits.item())
```

`text` holds one line each: the instruction, the first observation, then an action and the observation after it, and so
on; each line ends with a newline, and runs of blanks inside a line are one blank. Observations that the kit does not
show (`armap_lite.agent.transcript` is the definition) are left out. A text of more than {limit} tokens loses its
middle, as above. `example.json` holds texts, their tokens and scores to compare with. Batches are padded on the right.

With vLLM: `vllm serve FOLDER --runner pooling --dtype float32 --pooler-config '{{"use_activation": false}}'`, then POST
`{{"input": text}}` to `/classify`. Without that option a model with one label answers with a sigmoid of the score.
{limits}"""
PICTURES = """
## What is left out

This model learned with pictures ({vision}). Neither the tower nor the projector is part of this folder: it scores
the text alone, as the kit does for trajectories without pictures. For trajectories with pictures its scores differ from
the kit's.
"""
BIAS = """
## A constant

The kit's score is that of this folder plus {bias!r}: transformers' head has no bias. The constant is kept in
`config.json` as `armap_bias`; it changes no comparison.
"""


def write(exported: dict[str, Any], model: Path | str, out: Path | str) -> Path:
    """Write README.md to the folder `out`: `exported` is what `reward.export.export` returned for `model`."""
    model, out = Path(model), Path(out)
    config: RewardConfig = exported["config"]
    run, training = _read(model.parent / "run.json"), _read(model / "training.json")
    training = training or _read(model.parent / "training.json")  # an earlier version kept it there alone
    world = ast.literal_eval(run["env"]) if "env" in run else None
    licence = _licence(config.backbone)
    pairs = f"{training['train_pairs']:,} preference pairs" if "train_pairs" in training else "preference pairs"
    made = f"{pairs} of `{world}` (armap-lite, stages 1 and 2)" if world else f"{pairs}; run not known"
    facts = {
        "backbone": f"`{config.backbone}`" + (f", its lower {config.num_layers} layers" if config.num_layers else ""),
        "licence of the backbone": licence or "not stated where it was loaded from; see its own page",
        "what learned": f"the head and `{config.trainable}`"
        + ("; adapters are merged" if "lora" in config.trainable else ""),
        "data": made,
        "seed": ast.literal_eval(run["seed"]) if "seed" in run else "not known",
        "pair accuracy": _accuracy(model.parent),
        "pair accuracy on held-out training tasks": _held_out(training),
        "numbers": f"fp32; within {exported['difference']:.1g} of the kit's scores on `example.json`",
    }
    limit = config.max_tokens
    text = CARD.format(
        licence_id=licence.lower() if licence else "unknown",
        title=f"Reward model for {world or 'agents'} on {Path(config.backbone).name}",
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        limit=limit,
        head=limit - limit // 2,
        tail=limit // 2,
        limits=(PICTURES.format(vision=config.vision) if config.vision else "")
        + (BIAS.format(bias=exported["bias"]) if exported["bias"] else ""),
    )
    write_atomic(out / "README.md", text)
    return out / "README.md"


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


def _held_out(training: dict[str, Any]) -> str:
    accuracy = training.get("val_accuracy", -1.0)  # -1: nothing was held out
    return (
        f"{accuracy:.3f}, {training['val_pairs']} pairs; used to choose the weights"
        if accuracy >= 0
        else "not measured"
    )


def _licence(backbone: str) -> str | None:
    """An asset's licence, or that which a folder's own card states; None where nothing states one."""
    if backbone in ASSETS:
        return ASSETS[backbone].licence
    card = Path(backbone).expanduser() / "README.md"
    if card.is_file():
        stated = re.search(r"^license: *(\S+)", card.read_text(encoding="utf-8"), re.MULTILINE)
        return stated[1] if stated else None
    return None


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
