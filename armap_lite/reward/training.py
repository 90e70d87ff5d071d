"""Stage 3: train the reward model on preference pairs, with Lightning.

loss = -log sigmoid(R(x, chosen) - R(x, rejected)) + centring * |mean(R(x, chosen) + R(x, rejected))|
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.nn import functional as F

from armap_lite.llms.device import pick
from armap_lite.reward.config import RewardConfig, TrainingConfig
from armap_lite.reward.data import PairDataModule
from armap_lite.reward.model import RewardNetwork, build
from armap_lite.reward.projector import align
from armap_lite.store import caption
from armap_lite.tokens import LineTokenizer
from armap_lite.trajectory import PreferencePair

FEWEST = 10  # pictures to align a projector with: there is nothing to learn from fewer
WORST = {"val_accuracy": -1.0, "val_loss": math.inf}  # before the first validation, and where nothing is held out


def pairwise_loss(chosen: Tensor, rejected: Tensor, centring: float = 0.0) -> Tensor:
    """Mean of -log sigmoid(chosen - rejected) [B], plus `centring` times |mean(chosen + rejected)|."""
    return -F.logsigmoid(chosen - rejected).mean() + centring * (chosen + rejected).mean().abs()


class RewardModule(L.LightningModule):
    """Trains a `RewardNetwork` on batches of `PairDataModule`; the best by `config.monitor` is saved to `out`."""

    strict_loading = False  # checkpoints carry what learns, not the frozen backbone

    def __init__(self, network: RewardNetwork, config: TrainingConfig, out: Path):
        super().__init__()
        self.network = network.train()  # `from_pretrained` leaves the backbone in evaluation mode
        self.config = config
        self.out = out
        self.sign = -1 if config.monitor == "val_loss" else 1
        self.best = WORST
        self.tokens = 0  # attended tokens trained on
        self.seconds = 0.0  # in training steps, validation left out
        if config.gradient_checkpointing:
            network.backbone.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.network(input_ids, attention_mask)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        self.tokens += int(batch["attention_mask"].sum())
        return self._step("train", batch)

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        self._clock = time.perf_counter()

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - self._clock

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self._step("val", batch)

    def on_validation_epoch_end(self) -> None:
        found = {name: float(self.trainer.callback_metrics.get(name, worst)) for name, worst in WORST.items()}
        if self.sign * found[self.config.monitor] >= self.sign * self.best[self.config.monitor]:
            self.best = found
            if self.trainer.is_global_zero:
                self.network.save(self.out)

    def configure_optimizers(self) -> dict[str, Any]:
        learned = [p for p in self.network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=self.config.lr, weight_decay=self.config.weight_decay)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        warm = max(1, round(self.config.warmup * total))

        def scale(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 1.0 if self.config.schedule == "constant" else max(0.0, (total - step) / max(1, total - warm))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        learned = self.network.learned().keys()
        checkpoint["state_dict"] = {f"network.{k}": checkpoint["state_dict"][f"network.{k}"] for k in learned}
        checkpoint["so_far"] = (self.best, self.tokens, self.seconds)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.best, self.tokens, self.seconds = checkpoint["so_far"]

    def _step(self, name: str, batch: dict[str, Tensor]) -> Tensor:
        rewards = self(**batch)  # [2B], chosen first
        chosen, rejected = rewards.chunk(2)  # [B] each
        loss = pairwise_loss(chosen, rejected, self.config.centring)
        margin = (chosen - rejected).detach()
        metrics = {
            "loss": loss.detach(),
            "accuracy": (margin > 0).float().mean(),
            "margin": margin.mean(),
            "min_reward": rewards.min().detach(),
            "mean_reward": rewards.mean().detach(),
            "max_reward": rewards.max().detach(),
        }
        self.log_dict(
            {f"{name}_{k}": v for k, v in metrics.items()},
            batch_size=len(chosen),
            sync_dist=name == "val",
            on_step=name == "train",
            on_epoch=name == "val",
        )
        return loss


class AtomicIO(TorchCheckpointIO):
    """Replaces a checkpoint at once, so that a run killed while it writes one still has the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        super().save_checkpoint(checkpoint, f"{path}.partial", storage_options)
        os.replace(f"{path}.partial", path)


def train(
    pairs: Sequence[PreferencePair],
    out: Path,
    reward: RewardConfig | None = None,
    training: TrainingConfig | None = None,
    *,
    seed: int = 0,
    network: tuple[RewardNetwork, Any] | None = None,
    **trainer_options: Any,
) -> dict[str, float]:
    """Train on `pairs`; the best model lies in the folder `out` afterwards, with its curves in `out`-training.

    A run that was broken off goes on from its last checkpoint. `network`: network and tokenizer, instead of the
    pretrained ones that `reward` names. Returns accuracy on the held-out tasks, tokens, seconds and steps.
    """
    reward, training = reward or RewardConfig(), training or TrainingConfig()
    out = Path(out)
    log = out.with_name(out.name + "-training")
    last = log / "last.ckpt"
    for noisy in ("lightning.pytorch", "lightning.fabric"):  # which accelerators there are not, and tips
        logging.getLogger(noisy).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\..*")  # on its own internals, and modules frozen on purpose
    L.seed_everything(seed, workers=True, verbose=False)
    model, tokenizer = network or build(reward, "cpu")
    data = PairDataModule(
        pairs,
        tokenizer,
        batch_size=training.batch_size,
        epochs=training.epochs,
        max_tokens=model.config.max_tokens,
        held_out=training.held_out,
        seed=seed,
        pictures=model.pictures,
    )
    if model.pictures and model.config.vision != "own":
        _open_eyes(model, data.train_pairs, LineTokenizer(tokenizer), begun=last.is_file())
    module = RewardModule(model, training, out)
    batches = -(-len(data.train_pairs) // training.batch_size) * training.epochs // training.devices
    check = max(1, batches // training.checks // training.accumulate) * training.accumulate
    attempt = len(list(log.glob("attempt-*")))  # a run that goes on does not lose the curves it had
    trainer = L.Trainer(
        max_epochs=1,  # the sampler strings the epochs together, so that a checkpoint knows its place by batches alone
        accumulate_grad_batches=training.accumulate,
        gradient_clip_val=training.clip,
        precision=training.precision,  # type: ignore[arg-type]
        devices=training.devices,
        val_check_interval=min(check, batches),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        logger=[
            CSVLogger(log, name="", version=f"attempt-{attempt:03}", flush_logs_every_n_steps=1),
            TensorBoardLogger(log, name="", version=""),
        ],
        callbacks=[
            EarlyStopping(
                training.monitor,
                mode="max" if module.sign > 0 else "min",
                patience=training.patience,
                check_on_train_epoch_end=False,
            ),
            # After each validation, so that what it found is not lost with the rest.
            ModelCheckpoint(log, filename="last", save_on_train_epoch_end=False, enable_version_counter=False),
        ],
        plugins=[AtomicIO()],
        enable_model_summary=False,
        **{"accelerator": "auto", **trainer_options},
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint")  # PairDataModule goes on where it stood
        warnings.filterwarnings("ignore", "Checkpoint directory")
        trainer.fit(module, data, ckpt_path=str(last) if last.is_file() else None)
    if trainer.is_global_zero:
        files = [file for file in sorted(log.glob("attempt-*/metrics.csv")) if file.stat().st_size]
        curves = pd.concat([pd.read_csv(file) for file in files])
        curves.groupby("step", as_index=False).last().to_csv(log / "metrics.csv", index=False)
        for file in files:
            shutil.rmtree(file.parent)
        last.unlink(missing_ok=True)  # finished: nothing to resume
    return {
        **module.best,
        "tokens": module.tokens,
        "seconds": module.seconds,
        "steps": trainer.global_step,
        "train_pairs": len(data.train_pairs),
        "val_pairs": len(data.val_pairs),
        "shortened": data.shortened,
    }


def _open_eyes(model: RewardNetwork, pairs: Sequence[PreferencePair], lines: LineTokenizer, begun: bool) -> None:
    """Align a new projector with the captions of the pictures of `pairs`; without captions it learns with the rest.

    `begun`: it is aligned, and comes with the checkpoint. What captions taught it stays as it is, unless all learns.
    """
    pictures = [picture for pair in pairs for side in (pair.chosen, pair.rejected) for picture in side.pictures]
    about = {picture: f" {text}" for picture in pictures if (text := caption(picture))}  # the blank words begin with
    if len(about) < FEWEST:
        return
    embedding: Any = model.backbone.get_input_embeddings()  # type: ignore[operator]
    if not begun:
        words = embedding.words.weight
        features = embedding.pictures.of(list(about), pick()[0]).to(words.device)
        align(embedding.projector, features, list(about.values()), words, lines)
    embedding.projector.requires_grad_(model.config.train == "all")
