"""Checkpoints of Lightning that survive a crash."""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO


class AtomicIO(TorchCheckpointIO):
    """Replaces a checkpoint at once, so that a run killed while it writes one still has the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        super().save_checkpoint(checkpoint, f"{path}.partial", storage_options)
        os.replace(f"{path}.partial", path)
