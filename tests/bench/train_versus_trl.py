"""How fast the reward model trains beside TRL's RewardTrainer: attended tokens per second, both in one run, in turns.

Both have the same backbone and frozen layers, the same tokenised pairs, batch, epochs, optimiser, clipping and
precision, and no gradient checkpointing. Timed is what each trainer does from its first batch to its last, without
validation; `ratio` is the median of wall-clock time in the fastest precision of this device.

Needs TRL: pip install "armap-lite[trl]"
python tests/bench/train_versus_trl.py [--env game24] [--pairs FILE] [--repeats 3] [--quick]
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from datasets import Dataset
from train_throughput import BF16, CUDA, made_pairs
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from armap_lite.exchange import preferences
from armap_lite.llms import layers
from armap_lite.pipeline import profiles
from armap_lite.reward.data import PairDataModule
from armap_lite.reward.training import train
from armap_lite.storage.assets import resolve_model
from armap_lite.trajectory import PreferencePair


class Clock:
    """Wall-clock and CPU seconds between `start` and `stop`, summed."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def start(self, *_: Any, **__: Any) -> None:
        self.begun = self._now()

    def stop(self, *_: Any, **__: Any) -> None:
        wall, cpu = self._now()
        self.wall, self.cpu = self.wall + wall - self.begun[0], self.cpu + cpu - self.begun[1]

    def _now(self) -> tuple[float, float]:
        if CUDA:
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()


class OurClock(Clock, L.Callback):
    on_train_start = on_validation_end = Clock.start
    on_train_end = on_validation_start = Clock.stop


class TheirClock(Clock, TrainerCallback):
    on_train_begin = Clock.start
    on_train_end = Clock.stop


def ours(settings: profiles.Profile, pairs: list[PreferencePair], precision: str, out: Path) -> Clock:
    clock = OurClock()
    training = replace(settings.training, precision=precision, num_validations=1)
    train(pairs, out / "ours", settings.reward, training, callbacks=[clock], enable_progress_bar=False)
    return clock


def theirs(settings: profiles.Profile, data: PairDataModule, precision: str, out: Path) -> Clock:
    from trl import RewardConfig, RewardTrainer  # an extra

    path, training = resolve_model(settings.reward.backbone), settings.training
    kept = {} if settings.reward.num_layers is None else {"num_hidden_layers": settings.reward.num_layers}
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, dtype=torch.float32, **kept)
    kind, _, number = settings.reward.trainable.partition(":")
    if kind == "top":
        model.requires_grad_(False)
        for module in (*layers.top(model.base_model, int(number)), model.score):
            module.requires_grad_(True)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model.config.pad_token_id = tokenizer.pad_token_id
    clock = TheirClock()
    config = RewardConfig(
        output_dir=str(out / "theirs"),
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulate_grad_batches,
        num_train_epochs=training.epochs,
        learning_rate=training.lr,
        warmup_steps=training.warmup,
        max_grad_norm=training.gradient_clip_val,
        center_rewards_coefficient=training.center_rewards_coefficient,
        bf16=precision == "bf16-mixed",
        gradient_checkpointing=training.gradient_checkpointing,
        max_length=None,
        use_cpu=not CUDA,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rows = Dataset.from_list([{"chosen_ids": c, "rejected_ids": r} for c, r in data.train_tokens])
    RewardTrainer(model, config, train_dataset=rows, processing_class=tokenizer, callbacks=[clock]).train()
    return clock


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", default="game24", help="whose profile is used, without pictures")
    parser.add_argument("--pairs", type=Path, help="preference pairs of this world; default: made for Game of 24")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="sixty pairs, once")
    options = parser.parse_args()
    settings = profiles.get("gpu" if CUDA else "fast", options.env)
    settings = replace(settings, reward=replace(settings.reward, vision=None))
    pairs = (preferences.read(options.pairs) if options.pairs else made_pairs(settings))[
        : 60 if options.quick else None
    ]
    data = PairDataModule(
        pairs,
        AutoTokenizer.from_pretrained(resolve_model(settings.reward.backbone)),
        max_tokens=settings.reward.max_tokens,
        val_fraction=settings.training.val_fraction,
    )
    attended = settings.training.epochs * sum(len(side) for pair in data.train_tokens for side in pair)
    speed: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    precisions = ["32-true", "bf16-mixed"] if BF16 else ["32-true"]
    for _ in range(1 if options.quick else options.repeats):
        for precision in precisions:
            for name, work, some in (("ours", ours, pairs), ("TRL", theirs, data)):
                with tempfile.TemporaryDirectory() as folder:
                    clock = work(settings, some, precision, Path(folder))  # type: ignore[operator]
                speed.setdefault(f"{name} {precision}", []).append(round(attended / clock.wall, 1))
                cpu.setdefault(f"{name} {precision}", []).append(round(attended / clock.cpu, 1))

    def ratios(table: dict[str, list[float]]) -> dict[str, list[float]]:
        return {p: [round(a / b, 2) for a, b in zip(table[f"ours {p}"], table[f"TRL {p}"])] for p in precisions}

    result = {
        "name": "train_versus_trl",
        "ratio": statistics.median(ratios(speed)[precisions[-1]]),
        "versus": f"TRL's RewardTrainer in {precisions[-1]}",
        "unit": "times the attended tokens per second",
        "device": torch.cuda.get_device_name()
        if CUDA
        else f"{torch.get_num_threads()} threads of {platform.machine()}",
        "details": {
            "attended_tokens_per_second": speed,
            "attended_tokens_per_cpu_second": cpu,
            "ratios": ratios(speed),
            "ratios_of_cpu_time": ratios(cpu),
            "pairs": len(data.train_tokens),
            "epochs": settings.training.epochs,
            "tokens": attended,
            "backbone": settings.reward.backbone,
            "layers": settings.reward.num_layers,
            "trainable": settings.reward.trainable,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
