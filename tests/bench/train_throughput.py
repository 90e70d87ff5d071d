"""How fast the reward model trains: attended tokens per second, and the share of the device's peak that this is.

FLOPs of a step, for each attended token, with P(...) the number of matrix parameters in
  all:     the layers kept           forward                                    2 P(all)
  above:   layers from the lowest    backward, gradients of what flows through  2 P(above)
           one with a learned tensor
  learned: the tensors that learn    backward, gradients of the tensors         2 P(learned)
With "top:K" above = learned, so a step is 2 P(all) + 4 P(learned). Left out: attention itself (2 % at these lengths),
embeddings, norms, the head, padding, and what gradient checkpointing computes again. The peak is that of one large
matrix product in the same number format on the same device, measured here.

python tests/bench/train_throughput.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
import warnings
from pathlib import Path

import torch
from torch import nn

from armap_lite.envs.game24 import Game24, instruction
from armap_lite.pipeline import profiles
from armap_lite.reward.data import PairDataModule
from armap_lite.reward.model import build
from armap_lite.reward.training import RewardModule
from armap_lite.trajectory import PreferencePair, Task, Trajectory

warnings.filterwarnings("ignore", ".*self.log.*")  # there is no Trainer here
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
DTYPE = torch.bfloat16 if CUDA else torch.float32


def random_pairs(n: int) -> list[PreferencePair]:
    """Two random walks for each of `n` puzzles: as long as what is really trained on."""
    env, rng, pairs = Game24(), random.Random(0), []
    for i in range(n):
        numbers = [rng.randint(1, 13) for _ in range(4)]
        task = Task(f"t{i}", "game24", "train", instruction(numbers, 24), {"numbers": numbers, "target": 24})
        sides = []
        for _ in range(2):
            seen = env.reset(task)
            walk = Trajectory.begin(task, seen)
            while not seen.done:
                action = rng.choice(seen.admissible)
                seen = env.step(action)
                walk = walk.then(action, seen)
            sides.append(walk)
        pairs.append(PreferencePair(str(i), task.id, task.instruction, *sides, origin="plain", changed_at=0))
    return pairs


def flops_per_token(backbone: nn.Module) -> float:
    def size(layers: nn.ModuleList, learned: bool = False) -> int:
        weights = (p for p in layers.parameters() if p.dim() == 2 and (p.requires_grad or not learned))
        return sum(p.numel() for p in weights)

    layers = backbone.layers
    first = next(i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters()))
    return 2.0 * (size(layers) + size(layers[first:]) + size(layers, learned=True))


def seconds_for(work, repeats: int) -> float:
    """Seconds of one `work()`, the mean of `repeats` after one to warm up."""
    for i in range(repeats + 1):
        if i == 1:
            wait()
            start = time.perf_counter()
        work()
    wait()
    return (time.perf_counter() - start) / repeats


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def peak() -> float:
    """FLOP/s of a large matrix product."""
    n = 8192 if CUDA else 2048
    a, b = (torch.randn(n, n, device=DEVICE, dtype=DTYPE) for _ in range(2))
    return 2.0 * n**3 / min(seconds_for(lambda: a @ b, 3) for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two steps instead of eight")
    steps = 2 if parser.parse_args().quick else 8
    settings = profiles.get("gpu" if CUDA else "fast", "game24")
    network, tokenizer = build(settings.reward, str(DEVICE))
    module = RewardModule(network, settings.training, Path("unused"))
    size = settings.training.batch_size
    data = PairDataModule(random_pairs(2 * size * (steps + 1)), tokenizer, batch_size=size, val_fraction=0.1)
    batches = iter(data.train_dataloader())
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=settings.training.lr)
    attended = padded = 0

    def step() -> None:
        nonlocal attended, padded
        batch = next(batches)
        attended, padded = attended + int(batch["attention_mask"].sum()), padded + batch["attention_mask"].numel()
        with torch.autocast(DEVICE.type, DTYPE, enabled=CUDA):
            loss = module.training_step({name: table.to(DEVICE) for name, table in batch.items()}, 0)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.training.gradient_clip_val)
        optimizer.step()
        optimizer.zero_grad()

    seconds = seconds_for(step, steps)
    share = steps / (steps + 1)  # of the tokens above in the steps that were timed
    speed = attended * share / (seconds * steps)
    useful, most = speed * flops_per_token(network.backbone), peak()
    result = {
        "name": "train_throughput",
        "ratio": round(useful / most, 4),
        "versus": f"a large matrix product in {str(DTYPE).removeprefix('torch.')} on the same device",
        "unit": "share of the measured peak",
        "device": torch.cuda.get_device_name()
        if CUDA
        else f"{torch.get_num_threads()} threads of {platform.machine()}",
        "details": {
            "attended_tokens_per_second": round(speed, 1),
            "attended_share_of_computed_tokens": round(attended / padded, 3),
            "seconds_per_step": round(seconds, 3),
            "pairs_per_step": size,
            "gflops_per_token": round(flops_per_token(network.backbone) / 1e9, 3),
            "peak_tflops": round(most / 1e12, 3),
            "backbone": settings.reward.backbone,
            "layers": len(network.backbone.layers),
            "trainable": settings.reward.trainable,
            "steps": steps,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
