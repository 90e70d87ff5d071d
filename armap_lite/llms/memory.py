"""GPU memory of a training step, by estimate, and a batch that fits into what is free.

Profile `gpu` trains all 30 layers of SmolLM2-135M (hidden size 576) in bf16-mixed. There a padded token takes 1.18 MB
of activations, 68 bytes for each layer and hidden unit: 155 GB for 64 pairs of twice 1,024 tokens.
"""

import os
import sys
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from armap_lite.llms.device import cuda_has_bfloat16, without_cudnn_attention

CUDA_MULTIPLE = 64  # of the length of a training batch on a GPU, so that few shapes occur
BYTES = 68  # of activations, for each layer and hidden unit of a padded token
CHECKPOINT_BYTES = 4  # of a layer's kept input, for each hidden unit, with gradient checkpointing
SHARE = 0.8  # of the free memory that activations may take; the rest is for workspaces and fragmentation


def activation_bytes(layers: int, hidden: int, trainable: str, gradient_checkpointing: bool = False) -> int:
    """Bytes that the backward pass needs of each padded token; `trainable`: as in `RewardConfig`."""
    kind, _, number = trainable.partition(":")
    learning = min(int(number), layers) if kind == "top" else layers  # frozen layers below those that learn keep none
    return hidden * (CHECKPOINT_BYTES * learning + BYTES if gradient_checkpointing else BYTES * learning)


def model_bytes(network: nn.Module) -> int:
    """Bytes of weights, gradients and Adam's two moments, all in fp32."""
    return sum(4 * p.numel() * (4 if p.requires_grad else 1) for p in network.parameters())


def fit_batch(training: Any, tokens: int, token_bytes: int, free: int) -> Any:
    """`training` with fewer pairs in a pass and more passes in a step of the optimiser, as `free` bytes demand it.

    `tokens`: padded tokens of the longest side of a pair.
    """
    for parts in range(1, training.batch_size + 1):
        size, left_over = divmod(training.batch_size, parts)
        if not left_over and 2 * size * tokens * token_bytes <= SHARE * free:
            break
    return replace(training, batch_size=size, accumulate_grad_batches=training.accumulate_grad_batches * parts)


def fit_to_gpu(training: Any, network: Any, longest: int) -> Any:
    """`training` as this process's GPU can do it: float16 where it has no bfloat16, batches that fit into its memory.

    `longest`: tokens of the longest side of a pair. A smaller batch is reported on stderr.
    """
    without_cudnn_attention()
    where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if training.precision.startswith("bf16") and not cuda_has_bfloat16(where):
        training = replace(training, precision="16-mixed")
    text = network.backbone.config.get_text_config()
    each = activation_bytes(
        text.num_hidden_layers, text.hidden_size, network.config.trainable, training.gradient_checkpointing
    )
    free = torch.cuda.mem_get_info(where)[0] - model_bytes(network)
    padded = -(-longest // CUDA_MULTIPLE) * CUDA_MULTIPLE
    fitted = fit_batch(training, padded, each, free)
    if fitted != training:
        print(
            f"{fitted.batch_size} pairs a pass and {fitted.accumulate_grad_batches} passes a step instead of "
            f"{training.batch_size} and {training.accumulate_grad_batches}: {free / 1e9:.0f} GB are free for "
            f"activations, and all at once would take about {2e-9 * training.batch_size * padded * each:.0f} GB",
            file=sys.stderr,
        )
    return fitted
