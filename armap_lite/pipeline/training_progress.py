"""What a training process prints of its progress; `training_process` turns it into a bar."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning as L


class Progress(L.Callback):
    """Prints `step 20 of 100` every few seconds, and each validation's metrics; `training_process.STEP` reads them."""

    def __init__(self, seconds: float = 5.0):
        self.seconds = seconds
        self.said = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        if time.monotonic() - self.said > self.seconds:
            self._say(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        found = {name: float(trainer.callback_metrics.get(name, math.nan)) for name in ("val_accuracy", "val_loss")}
        self._say(trainer, f": held-out accuracy {found['val_accuracy']:.3f}, loss {found['val_loss']:.3f}")

    def _say(self, trainer: L.Trainer, found: str = "") -> None:
        self.said = time.monotonic()
        if trainer.is_global_zero:
            print(f"step {trainer.global_step} of {int(trainer.estimated_stepping_batches)}{found}", flush=True)
