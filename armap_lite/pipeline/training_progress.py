"""What a training process prints while it trains, for the process that waits for it."""

import math
import time
from typing import Any

import lightning as L


class Progress(L.Callback):
    """Prints `step 20 of 100` every 5 s, and each validation's metrics; `training_process.STEP` reads them."""

    said = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        if time.monotonic() - self.said > 5.0:
            self._say(trainer)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        accuracy, loss = (float(trainer.callback_metrics.get(name, math.nan)) for name in ("val_accuracy", "val_loss"))
        self._say(trainer, f": held-out accuracy {accuracy:.3f}, loss {loss:.3f}")

    def _say(self, trainer: L.Trainer, found: str = "") -> None:
        self.said = time.monotonic()
        if trainer.is_global_zero:
            print(f"step {trainer.global_step} of {int(trainer.estimated_stepping_batches)}{found}", flush=True)
