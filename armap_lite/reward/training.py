"""Stage 3: train the reward model on preference pairs, with Lightning.

loss = -log sigmoid(R(x, chosen) - R(x, rejected)) + center_rewards_coefficient * |mean(R(x, chosen) + R(x, rejected))|
"""

import dataclasses
import json
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn import functional as F

from armap_lite.llms.device import pick
from armap_lite.llms.memory import fit_to_gpu
from armap_lite.llms.prefixes import SharedForward, shared_forward
from armap_lite.llms.tokens import LineTokenizer
from armap_lite.reward.config import RewardConfig, TrainingConfig, read_json, same_source, trained_on
from armap_lite.reward.data import PairDataModule, split_by_task
from armap_lite.reward.model import RewardNetwork, build
from armap_lite.storage import folders
from armap_lite.storage.former_names import current_names
from armap_lite.storage.store import write_atomic
from armap_lite.trajectory import PreferencePair
from armap_lite.vision.projector import align_to_captions

WORST = {"val_accuracy": -1.0, "val_loss": math.inf}  # before the first validation


def pairwise_loss(chosen: Tensor, rejected: Tensor, center_rewards_coefficient: float = 0.0) -> Tensor:
    """Mean of -log sigmoid(chosen - rejected) [B], plus |mean(chosen + rejected)| times the coefficient."""
    return -F.logsigmoid(chosen - rejected).mean() + center_rewards_coefficient * (chosen + rejected).mean().abs()


class RewardModule(L.LightningModule):
    """Trains a `RewardNetwork` on batches of `PairDataModule`; the best by `config.monitor` is saved to `out`."""

    strict_loading = False  # checkpoints carry what learns, not the frozen backbone

    def __init__(self, network: RewardNetwork, config: TrainingConfig, out: Path):
        super().__init__()
        self.network = network.train()  # `from_pretrained` leaves the backbone in evaluation mode
        self.shared: SharedForward | None = None  # instead of the network's own forward, where it does the same
        self.config, self.out = config, out
        self.sign = -1 if config.monitor == "val_loss" else 1
        self.best = WORST
        self.tokens = 0  # attended tokens trained on; at the end, on all devices
        self.seconds = 0.0  # between validations
        if config.gradient_checkpointing:
            network.backbone.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return (self.shared or self.network)(input_ids, attention_mask)  # [2B]

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        return self._step("train", batch)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self._step("val", batch)

    def _step(self, name: str, batch: dict[str, Tensor]) -> Tensor:
        rewards = self(**batch)  # [2B], chosen first
        chosen, rejected = rewards.chunk(2)  # [B] each
        loss = pairwise_loss(chosen, rejected, self.config.center_rewards_coefficient)  # []
        margin, rewards = (chosen - rejected).detach(), rewards.detach()  # [B], [2B]
        # Named as in TRL's RewardTrainer.
        metrics = {"loss": loss.detach(), "accuracy": (margin > 0).float().mean(), "margin": margin.mean()}
        metrics |= {"min_reward": rewards.min(), "mean_reward": rewards.mean(), "max_reward": rewards.max()}
        named = {f"{name}_{k}": v for k, v in metrics.items()}
        val = name == "val"
        self.log_dict(named, batch_size=len(chosen), sync_dist=val, on_step=not val, on_epoch=val)
        return loss

    def on_validation_epoch_end(self) -> None:
        found = {name: float(self.trainer.callback_metrics.get(name, worst)) for name, worst in WORST.items()}
        if self.sign * found[self.config.monitor] >= self.sign * self.best[self.config.monitor]:
            self.best = found
            if self.trainer.is_global_zero:
                self.network.save(self.out)

    def configure_optimizers(self) -> dict[str, Any]:
        config, learned = self.config, [p for p in self.network.parameters() if p.requires_grad]
        # In half precision, the fused one does not scale gradients back.
        fused = self.device.type in ("cpu", "cuda") and self.trainer.precision != "16-mixed"
        optimizer = torch.optim.AdamW(learned, lr=config.lr, weight_decay=config.weight_decay, fused=fused or None)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        warm = max(1, round(config.warmup * total))

        def scale(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 1.0 if config.schedule == "constant" else max(0.0, (total - step) / max(1, total - warm))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any = None, **rest: Any) -> None:
        if gradient_clip_val and optimizer.defaults.get("fused"):  # refused by Lightning, needlessly without a scaler
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, **rest)

    def setup(self, stage: str) -> None:
        """Take the batch of the first rank: others may have found other memory free, or no file of it yet."""
        trainer, data = self.trainer, self.trainer.datamodule  # type: ignore[attr-defined]
        mine = (data.batch_size, trainer.accumulate_grad_batches, trainer.val_check_interval)
        first = trainer.strategy.broadcast(mine)
        data.batch_size, trainer.accumulate_grad_batches, trainer.val_check_interval = first

    def on_before_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        if self.trainer.training:  # counted here, where the batch is on the CPU: a GPU would have to be waited for
            self.tokens += int(batch["attention_mask"].sum())
        return batch

    def on_train_start(self) -> None:
        self._clock = time.perf_counter()

    def on_validation_start(self) -> None:
        self._stop_clock()

    def on_validation_end(self) -> None:
        self._clock = time.perf_counter()

    def on_train_end(self) -> None:
        self._stop_clock()
        step = self.trainer.global_step
        if step % self.trainer.log_every_n_steps:  # of type int; the last step is a point of the curve too
            last = {k: float(v) for k, v in self.trainer.callback_metrics.items() if k.startswith("train_")}
            for logger in self.trainer.loggers:
                logger.log_metrics(last, step - 1)
        tokens = torch.tensor(self.tokens, device=self.device)
        self.tokens = int(self.trainer.strategy.reduce(tokens, reduce_op="sum"))

    def _stop_clock(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - self._clock

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        learned = self.network.learned().keys()
        checkpoint["state_dict"] = {f"network.{k}": checkpoint["state_dict"][f"network.{k}"] for k in learned}
        checkpoint["so_far"] = (self.best, self.tokens, self.seconds)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.best, self.tokens, self.seconds = checkpoint["so_far"]


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
    callbacks: Sequence[L.Callback] = (),
    **trainer_options: Any,
) -> dict[str, float]:
    """Train on `pairs` in this process and write the best model to the folder `out`.

    `out` also gets `training.json`: the metrics, the pairs' hash and the settings; `out`-training gets the curves. A
    model that was in `out` before stays until the new one is complete. An interrupted run goes on from its last
    checkpoint, if pairs and settings are the same. `network`: network and tokenizer, instead of the pretrained ones
    that `reward` names. `trainer_options`: of Lightning's Trainer.

    Returns accuracy and loss on the held-out tasks, tokens, seconds, steps, and numbers of pairs. Raises ValueError if
    `out` holds anything but a reward model, the pairs cannot be split by task, or the held-out loss is never finite.
    """
    reward, training = reward or RewardConfig(), training or TrainingConfig()
    out, log = Path(out), folders.log_of(Path(out))
    best, last = log / "best", log / "last.ckpt"
    for noisy in ("lightning.pytorch", "lightning.fabric"):  # which accelerators there are not, and tips
        logging.getLogger(noisy).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\..*")  # on its own internals, and modules frozen on purpose
    L.seed_everything(seed, workers=True, verbose=False)
    split_by_task(pairs, training.val_fraction, seed)  # what cannot be split is said before a backbone is loaded
    model, tokenizer = network or build(reward, "cpu")
    trainer_options = {"accelerator": "auto", **trainer_options}
    cuda = trainer_options["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    split: dict[str, Any] = {"epochs": training.epochs, "val_fraction": training.val_fraction, "seed": seed}
    data = PairDataModule(pairs, tokenizer, **split, max_tokens=model.config.max_tokens, pictures=model.pictures)
    source = trained_on(pairs, reward if network is None else model.config, training, seed)  # as asked for, uncapped
    if training.precision == "auto":
        has_bf16 = pick("cuda" if cuda else "cpu")[1] == torch.bfloat16
        training = dataclasses.replace(training, precision="bf16-mixed" if has_bf16 else "32-true")
    if cuda:
        longest = max(len(side) for pair in (*data.train_tokens, *data.val_tokens) for side in pair)
        training = fit_to_gpu(training, model, longest)
    training = _resume_or_restart(log, source, training)
    data.batch_size = training.batch_size
    if model.pictures and model.config.vision != "own":
        embedding: Any = model.backbone.get_input_embeddings()  # type: ignore[operator]
        seen = [picture for pair in data.train_pairs for picture in pair.chosen.pictures + pair.rejected.pictures]
        if align_to_captions(embedding, seen, LineTokenizer(tokenizer), pick()[0], begun=last.is_file()):
            embedding.projector.requires_grad_(model.config.trainable == "all")  # captions taught it all that it needs
    module = RewardModule(model, training, best)
    trainer = _trainer(module, log, len(data.train_pairs), 20 if cuda else 1, callbacks, trainer_options)
    if trainer.strategy.root_device.type == "cpu" and not training.gradient_checkpointing:
        parts = ({tuple(side) for pair in part for side in pair} for part in (data.train_tokens, data.val_tokens))
        module.shared = shared_forward(model, *parts)
    with warnings.catch_warnings():
        # The first is needless: PairDataModule goes on where it stood.
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint|Checkpoint directory")
        try:
            trainer.fit(module, data, ckpt_path=str(last) if last.is_file() else None)
        except SystemExit as error:  # Lightning's answer to an interrupt
            raise KeyboardInterrupt from error
    if not math.isfinite(module.best["val_loss"]):
        raise ValueError(f"training diverged: no finite loss on the held-out tasks; lower lr={training.lr}")
    cost = {"tokens": module.tokens, "seconds": module.seconds, "steps": trainer.global_step}
    sizes = {"train_pairs": len(data.train_pairs), "val_pairs": len(data.val_pairs)}
    metrics: dict[str, float] = {**module.best, **cost, **sizes, "shortened": data.shortened, "left_out": data.left_out}
    if trainer.is_global_zero:
        folders.gather_curves(log)
        write_atomic(best / "training.json", json.dumps({**metrics, "trained_on": source}, indent=1, allow_nan=False))
        last.unlink(missing_ok=True)  # finished: nothing to resume
        folders.log_of(out)  # nothing but a reward model is there still
        folders.replace(out, best)
    return metrics


def _trainer(
    module: RewardModule, log: Path, pairs: int, log_every: int, callbacks: Sequence[L.Callback], options: dict
) -> L.Trainer:
    """Lightning's Trainer for `pairs` training pairs, with curves and checkpoints in `log`."""
    config = module.config
    batches = -(-pairs // config.batch_size) * config.epochs // config.devices
    steps = max(1, batches // config.num_validations // config.accumulate_grad_batches)  # from one to the next
    attempt = len(list(log.glob("attempt-*")))  # a run that goes on does not lose the curves it had
    mode = "max" if module.sign > 0 else "min"
    stop = EarlyStopping(config.monitor, mode=mode, patience=config.patience, check_on_train_epoch_end=False)
    # After each validation, so that what it found is not lost with the rest.
    keep = ModelCheckpoint(log, filename="last", save_on_train_epoch_end=False, enable_version_counter=False)
    return L.Trainer(
        max_epochs=1,  # the sampler strings the epochs together, so that a checkpoint knows its place by batches alone
        accumulate_grad_batches=config.accumulate_grad_batches,
        gradient_clip_val=config.gradient_clip_val,
        precision=config.precision,  # type: ignore[arg-type]
        devices=config.devices,
        val_check_interval=min(steps * config.accumulate_grad_batches, batches),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=log_every,  # each value is read from the device, which a GPU has to wait for
        logger=CSVLogger(log, name="", version=f"attempt-{attempt:03}", flush_logs_every_n_steps=1),
        callbacks=[stop, keep, *callbacks],
        plugins=[AtomicIO()],
        enable_model_summary=False,
        **options,
    )


def _resume_or_restart(log: Path, source: dict[str, Any], training: TrainingConfig) -> TrainingConfig:
    """Drop the checkpoint of a run with another `source`, and keep the batch of one that goes on.

    Ranks that Lightning starts find the file that the first rank wrote, and so take the same batch.
    """
    file = log / folders.STARTED
    if file.is_file() and same_source((before := read_json(file)).get("source"), source):
        return dataclasses.replace(training, **current_names(before["batch"]))
    if rank_zero_only.rank:
        return training
    if (log / "last.ckpt").is_file():
        print(f"{log}: begun on other pairs or with other settings, so it starts anew", file=sys.stderr)
    folders.clear(log)
    batch = {name: getattr(training, name) for name in ("batch_size", "accumulate_grad_batches")}
    write_atomic(file, json.dumps({"source": source, "batch": batch}))
    return training
