"""A trained reward model as a Hugging Face folder that other tools load (transformers, vLLM, TRL), or made small.

`AutoModelForSequenceClassification` computes w . h at the last token that is not padding, which is what
`RewardNetwork` computes. The exported tokenizer turns a trajectory's text into the kit's tokens, and every export is
read back and compared with the kit's own scores before it is kept.
"""

import ast
import copy
import hashlib
import json
import re
import subprocess
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Template
from tokenizers import Tokenizer, processors
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from armap_lite import reward
from armap_lite.exchange import preferences
from armap_lite.llms.tokens import LineTokenizer
from armap_lite.reward.config import RewardConfig
from armap_lite.reward.data import pad
from armap_lite.reward.model import RewardNetwork, build
from armap_lite.statistics import pair_metrics
from armap_lite.storage import folders, low_rank
from armap_lite.storage.assets import ASSETS, no_progress_bars
from armap_lite.storage.store import read_json, read_jsonl, write_atomic
from armap_lite.trajectory import PreferencePair, Step, Task, Trajectory, transcript
from armap_lite.vision.pictures import PictureEmbedding, encode

TOLERANCE = 1e-4  # between the kit's score and that of the exported folder
OTHERWISE = "score with armap_lite.reward.load"


def export(path: Path | str, out: Path | str) -> dict[str, Any]:
    """Write the reward model in the folder `path` to the new folder `out`, in fp32, with a card.

    Returns `{"config": RewardConfig, "difference": float}`: what the model is made of, and the largest difference
    between the kit's scores and the exported model's on the trajectories in `example.json`.
    Raises ValueError where transformers has no equivalent model, or `out` is not empty.
    """
    path, out = Path(path), Path(out)
    if not (path / "reward.json").is_file():
        raise FileNotFoundError(f"{path} holds no reward model (no reward.json); give the folder of a trained one")
    folders.check_new(out)
    with folders.whole(out) as part, no_progress_bars(str(path)):
        exported = _export(path, part)
        _write_card("model_card.txt", path, part, **exported, accuracy=_accuracy(path.parent))
        folders.check_new(out)  # still
    return exported


def _export(path: Path, out: Path) -> dict[str, Any]:
    config = RewardConfig.read(path / "reward.json")
    network, tokenizer = build(config, "cpu")
    network.load_learned(path)
    network.eval().requires_grad_(False)
    examples, lines, limit = _examples(path.parent), LineTokenizer(tokenizer), config.max_tokens
    rows = [encode(lines, trajectory, text, limit)[0] for text, trajectory in examples]
    expected = _scores(lambda batch: network(**batch), rows)  # [N]

    _merge(network)
    texts = [transcript(trajectory, text) for text, trajectory in examples]
    written = _tokenizer(tokenizer, lines, texts, limit)
    model = _classifier(network, written.pad_token_id)
    model.save_pretrained(out)
    written.save_pretrained(out)
    file = out / "tokenizer_config.json"  # gets the name of a class that transformers 4 knows as well
    settings = json.loads(file.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_atomic(file, json.dumps(settings, indent=1))
    back = AutoModelForSequenceClassification.from_pretrained(out).eval()
    scores = _scores(lambda batch: back(**batch).logits[:, 0], rows, written.pad_token_id)  # [N]
    difference = float((scores - expected).abs().max())
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{type(model).__name__} scores otherwise than the kit does (by up to {difference:.2g}), so it is not "
            f"exported; {OTHERWISE}"
        )
    kept = zip(examples, texts, rows, scores.tolist())
    shown = [{"instruction": i, "text": text, "input_ids": row, "score": s} for (i, _), text, row, s in kept]
    shown_lines = ",\n".join(json.dumps(line, ensure_ascii=False, allow_nan=False) for line in shown)
    write_atomic(out / "example.json", f"[\n{shown_lines}\n]\n")
    return {"config": config, "difference": difference}


def _merge(network: RewardNetwork) -> None:
    """Fold LoRA adapters into the layers they adapt, and leave out what reads pictures."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            network.set_submodule(name, module.get_base_layer())
    embedding = network.backbone.get_input_embeddings()  # type: ignore[operator]
    if isinstance(embedding, PictureEmbedding):
        network.backbone.set_input_embeddings(embedding.words)  # type: ignore[operator]
        network.pictures = None


def _classifier(network: RewardNetwork, pad_token_id: int) -> Any:
    """transformers' sequence-classification model of the backbone's architecture, with the weights of `network`."""
    config: Any = copy.deepcopy(network.backbone.config)
    config.num_labels = 1
    config.problem_type = "regression"  # one number, not a probability
    config.get_text_config().pad_token_id = pad_token_id
    config.tie_word_embeddings = False  # there is no vocabulary head
    name = config.model_type
    try:
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise ValueError(
            f"transformers has no sequence classification for architecture {name!r}; {OTHERWISE}"
        ) from error
    if not isinstance(getattr(model, "score", None), nn.Linear) or model.score.bias is not None:
        raise ValueError(f"{type(model).__name__} has no linear head at the last token; {OTHERWISE}")
    try:
        model.base_model.load_state_dict(network.backbone.state_dict())
        model.score.weight.data.copy_(network.head.weight)
    except RuntimeError as error:
        raise ValueError(f"the weights of {name!r} do not fit {type(model).__name__} ({error}); {OTHERWISE}") from error
    return model.eval()


def _tokenizer(tokenizer: Any, lines: LineTokenizer, texts: Sequence[str], limit: int) -> Any:
    """A fast tokenizer that makes of each text what `lines` makes of it: `start`, then its tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"{type(tokenizer).__name__} has no fast tokenizer, so it cannot be exported")
    start = tokenizer.convert_ids_to_tokens(lines.start)
    names = ("bos_token", "eos_token", "unk_token")
    special = {name: getattr(tokenizer, name) for name in names if getattr(tokenizer, name) is not None}
    special["pad_token"] = tokenizer.pad_token or tokenizer.eos_token or start
    texts = [*texts, "go\n1 + 1 = 2\n", "a: b.\n\n  c\n", "x\n" * 3]
    made = Tokenizer.from_str(backend.to_str())
    made.no_truncation()
    made.no_padding()
    made.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", pair=f"{start} $A $B:1", special_tokens=[(start, lines.start)]
    )
    found = PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=limit, padding_side="right", **special)
    if any(found(text, verbose=False)["input_ids"] != [lines.start, *lines(text)] for text in texts):
        raise ValueError(f"{type(tokenizer).__name__} cannot be written so that it reads text as the kit does")
    if found.pad_token_id == lines.newline:
        raise ValueError(f"the padding token {found.pad_token!r} also ends lines; give the tokenizer another")
    return found


def _scores(score: Any, rows: Sequence[list[int]], fill: int = 0) -> torch.Tensor:
    """[len(rows)], in padded batches of eight."""
    with torch.inference_mode():
        return torch.cat([score(pad(rows[i : i + 8], fill)) for i in range(0, len(rows), 8)])


def _examples(run: Path) -> list[tuple[str, Trajectory]]:
    """Instructions and trajectories to compare scores on: both sides of pairs of the run, or two made ones."""
    for name in ("dev_pairs.jsonl", "pairs.jsonl"):
        if (run / name).is_file():
            pairs = [PreferencePair.from_json(line["pair"]) for line in read_jsonl(run / name) if "pair" in line]
            if pairs:
                return [(p.instruction, t) for p in pairs[:4] for t in (p.chosen, p.rejected)]
    task = Task("example", "example", "train", "Use the numbers 1 1 4 6 to obtain 24.")
    walks = [("4 * 1 = 4", "left: 1 4 6"), ("6 * 1 = 6", "left: 4 6"), ("6 * 4 = 24", "left: 24")]
    steps = tuple(Step(action, seen) for action, seen in walks)
    return [(task.instruction, Trajectory(task, "left: 1 1 4 6", steps[:n], True)) for n in (1, 3)]


def shrink(model: Path | str, out: Path | str, rank: int) -> None:
    """Write the reward model in the folder `model` to the new folder `out`, each matrix that learned by rank `rank`.

    The card says how well both rank the development pairs. Raises ValueError where `rank` is below 1, `out` is not
    empty, or fp16 cannot hold a number.
    """
    model, out = Path(model), Path(out)
    if rank < 1:
        raise ValueError(f"low_rank={rank}: expected at least 1")
    folders.check_new(out)
    network, _ = build(RewardConfig.read(model / "reward.json"), "cpu")
    before = {name: tensor.clone() for name, tensor in network.pretrained().items()}
    network.load_learned(model)
    network.save(out, low_rank.split(network.learned(), before, rank))
    pairs = model.parent / "dev_pairs.jsonl"
    facts = {"rank": rank, "accuracy": _ranked(out, pairs), "whole": _ranked(model, pairs), "commit": _commit()}
    facts["sha256"] = hashlib.sha256((out / "weights.safetensors").read_bytes()).hexdigest()
    _write_card("low_rank_card.txt", model, out, network.config, **facts)


def _write_card(template: str, model: Path, out: Path, config: RewardConfig, **facts: Any) -> None:
    """Write README.md to `out`; its figures come from the files of the run that trained `model`."""
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
