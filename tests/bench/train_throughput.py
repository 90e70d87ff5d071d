"""How fast the reward model trains: attended tokens per second, against forward passes over whole texts.

whole    each batch is padded, every text goes through all layers, AdamW takes one tensor after the other
shared   common beginnings and frozen layers are computed once (llms/prefixes.py), AdamW is fused

Both in fp32 and, where the device computes in it, in bf16-mixed; in turns, whole epochs as the profile has them, the
frozen layers of `shared` included. On CUDA training takes whole texts. `ratio` is that of wall-clock time, shared in
the profile's precision against whole in fp32 (CUDA: the share of the device's peak); `details` also has CPU time.

FLOPs of a step, for each attended token of `whole`, with P(...) the number of matrix parameters in
  all:     the layers kept           forward                                    2 P(all)
  above:   layers from the lowest    backward, gradients of what flows through  2 P(above)
           one with a learned tensor
  learned: the tensors that learn    backward, gradients of the tensors         2 P(learned)
With "top:K" above = learned, so a step is 2 P(all) + 4 P(learned). Left out: attention itself (2 % at these lengths),
embeddings, norms, the head, padding, and what gradient checkpointing computes again. The peak is that of one large
matrix product in the same number format on the same device, measured here.

`--growth`: seconds and peak memory for 1, 2, 4 and 8 times the pairs, and for texts of 1, 2, 4 and 8 times the tokens.

python tests/bench/train_throughput.py [--env game24] [--pairs FILE] [--repeats 3] [--quick] [--growth]
"""

import argparse
import asyncio
import itertools
import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from armap_lite import collect, envs, synthesize
from armap_lite.agent import Agent
from armap_lite.exchange import preferences
from armap_lite.llms.device import pick
from armap_lite.llms.prefixes import SharedForward
from armap_lite.pipeline import profiles
from armap_lite.reward.data import PairDataModule, Tokens, collate
from armap_lite.reward.model import RewardNetwork, build
from armap_lite.reward.training import RewardModule
from armap_lite.trajectory import PreferencePair

sys.path.append(str(Path(__file__).parents[1]))
from tiny import ScriptedLM

warnings.filterwarnings("ignore", ".*self.log.*")  # there is no Trainer here
CUDA = torch.cuda.is_available()
DEVICE, BF16 = pick()[0], pick()[1] == torch.bfloat16
FACTORS = (1, 2, 4, 8)
Batches = list[dict[str, torch.Tensor]]


def made_pairs(settings: profiles.Profile) -> list[PreferencePair]:
    """Pairs of Game of 24 as stage 2 makes them, of random trajectories."""
    with envs.make("game24") as env, tempfile.TemporaryDirectory() as folder:
        lm, files = ScriptedLM(), [Path(folder, name) for name in ("trajectories.jsonl", "pairs.jsonl")]

        async def stages() -> None:
            tasks = env.draw(settings.collect_tasks, seed=0)
            await collect.collect(env, Agent(lm, env), tasks, files[0], samples=settings.samples, num_proposals=0)
            kept = collect.load(files[0])
            await synthesize.synthesize(env, lm, kept, files[1], num_negatives=settings.num_negatives, num_drafts=1)

        asyncio.run(stages())
        return synthesize.load(files[1])


def flops_per_token(backbone: nn.Module) -> float:
    def size(layers: nn.ModuleList, learned: bool = False) -> int:
        weights = (p for p in layers.parameters() if p.dim() == 2 and (p.requires_grad or not learned))
        return sum(p.numel() for p in weights)

    layers = backbone.layers
    first = next(i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters()))
    return 2.0 * (size(layers) + size(layers[first:]) + size(layers, learned=True))


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of `work()`."""
    wait()
    start = time.perf_counter(), time.process_time()
    work()
    wait()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def peak(dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product."""
    n = 8192 if CUDA else 2048
    a, b = (torch.randn(n, n, device=DEVICE, dtype=dtype) for _ in range(2))
    return 2.0 * n**3 / min(timed(lambda: a @ b)[0] for _ in range(4))


def train(network: RewardNetwork, settings: profiles.Profile, batches: Batches, shared: bool, bf16: bool) -> None:
    """All of `batches`, as `training.train` computes them."""
    module = RewardModule(network, settings.training, Path("unused"))
    if shared:
        texts = (
            tuple(ids[:n])
            for batch in batches
            for ids, n in zip(batch["input_ids"].tolist(), batch["attention_mask"].sum(-1).tolist())
        )
        module.shared = SharedForward(network, texts)
    learned = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=settings.training.lr, fused=shared or CUDA or None)
    for batch in batches:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            loss = module.training_step({name: table.to(DEVICE) for name, table in batch.items()}, 0)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.training.gradient_clip_val)
        optimizer.step()
        optimizer.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", default="game24", help="whose profile is used")
    parser.add_argument("--pairs", type=Path, help="preference pairs of this world; default: made for Game of 24")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="four batches in an epoch, once")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)  # one size of --growth, in its own process
    options = parser.parse_args()
    settings = profiles.get("gpu" if CUDA else "fast", options.env)
    if options.growth or options.one:
        settings = replace(settings, reward=replace(settings.reward, max_tokens=8192, vision=None))
    print(
        json.dumps(
            one(settings, *options.one) if options.one else (growth if options.growth else ratio)(settings, options)
        )
    )


def ratio(settings: profiles.Profile, options: argparse.Namespace) -> dict[str, Any]:
    pairs = preferences.read(options.pairs) if options.pairs else made_pairs(settings)
    network, tokenizer = build(settings.reward, str(DEVICE))
    if network.pictures:  # frozen, as after the captions
        network.backbone.get_input_embeddings().projector.requires_grad_(False)
    training = settings.training
    data = PairDataModule(
        pairs, tokenizer, batch_size=training.batch_size, epochs=training.epochs,
        max_tokens=settings.reward.max_tokens, pictures=network.pictures,
    )  # fmt: skip
    if options.quick:
        data.train_tokens = data.train_tokens[: 4 * training.batch_size]
    batches = list(data.train_dataloader())
    attended = sum(int(batch["attention_mask"].sum()) for batch in batches)
    arms = {
        f"{'shared' if shared else 'whole'} {'bf16-mixed' if bf16 else 'fp32'}": (shared, bf16)
        for bf16, shared in itertools.product((False, True), (False, True))
        if (BF16 or not bf16) and not (CUDA and shared)
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for repeat in range(1 if options.quick else options.repeats):
        for name, how in arms.items():
            if not repeat:
                train(network, settings, batches[:1], *how)
            seconds[name].append(timed(lambda how=how: train(network, settings, batches, *how)))
    speed = {name: [attended / wall for wall, _ in found] for name, found in seconds.items()}
    cpu = {name: [attended / used for _, used in found] for name, found in seconds.items()}
    best, dtype = list(arms)[-1], torch.bfloat16 if BF16 else torch.float32
    most = peak(dtype)
    useful = statistics.median(speed[best]) * flops_per_token(network.backbone) / most

    def against(table: dict[str, list[float]], base: str) -> dict[str, list[float]]:
        return {f"{name} / {base}": [round(a / b, 2) for a, b in zip(table[name], table[base])] for name in arms}

    return {
        "name": "train_throughput",
        "ratio": round(
            useful if CUDA else statistics.median(map(lambda a, b: a / b, speed[best], speed["whole fp32"])), 3
        ),
        "versus": "a large matrix product in bf16 on the same device" if CUDA else f"{best} against whole fp32",
        "unit": "share of the measured peak" if CUDA else "times the attended tokens per second",
        "device": torch.cuda.get_device_name()
        if CUDA
        else f"{torch.get_num_threads()} threads of {platform.machine()}",
        "details": {
            "attended_tokens_per_second": {name: [round(x, 1) for x in found] for name, found in speed.items()},
            "attended_tokens_per_cpu_second": {name: [round(x, 1) for x in found] for name, found in cpu.items()},
            "ratios": against(speed, "whole fp32"),
            "ratios_of_cpu_time": against(cpu, "whole fp32"),
            "share_of_peak": round(useful, 4),
            "peak_tflops": round(most / 1e12, 3),
            "gflops_per_token": round(flops_per_token(network.backbone) / 1e9, 3),
            "pairs": len(data.train_tokens),
            "epochs": training.epochs,
            "tokens": attended,
            "pairs_per_step": training.batch_size,
            "backbone": settings.reward.backbone,
            "layers": len(network.backbone.layers),
            "trainable": settings.reward.trainable,
        },
    }


def made_tokens(pairs: int, length: int) -> list[Tokens]:
    """Random tokens: the sides of a pair share three fifths, two pairs each share a chosen side."""
    rng = random.Random(0)

    def some(n: int) -> list[int]:
        return [rng.randrange(10, 40_000) for _ in range(n)]

    rows: list[Tokens] = []
    for i in range(pairs):
        chosen = rows[-1][0] if i % 2 else some(length)
        rows.append((chosen, chosen[: length * 3 // 5] + some(length - length * 3 // 5)))
    return rows


def one(settings: profiles.Profile, pairs: int, length: int) -> dict[str, float]:
    """Train on `pairs` pairs of texts of `length` tokens: seconds and peak memory of this process."""
    network, _ = build(settings.reward, str(DEVICE))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows, size = made_tokens(pairs, length), settings.training.batch_size
    batches = [collate(rows[i : i + size], 0) for i in range(0, len(rows), size)]
    wall, cpu = timed(lambda: train(network, settings, batches, not CUDA, BF16))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss counts kilobytes, on macOS bytes
    return {
        "pairs": pairs, "tokens_per_text": length, "seconds": round(wall, 2), "cpu_seconds": round(cpu, 2),
        "attended_tokens_per_second": round(2 * pairs * length / wall, 1), "peak_mb": round(after / unit),
        "of_which_model_mb": round(before / unit),
    }  # fmt: skip


def growth(settings: profiles.Profile, options: argparse.Namespace) -> dict[str, Any]:
    base = 16 if options.quick else 32
    sizes: dict[str, Sequence[tuple[int, int]]] = {
        "pairs": [(base * factor, 64) for factor in FACTORS],
        "tokens": [(base, 64 * factor) for factor in FACTORS],
    }
    table: dict[str, list[dict[str, float]]] = {}
    for kind, some in sizes.items():
        table[kind] = []
        for size in some:
            command = [sys.executable, __file__, "--env", options.env, "--one", json.dumps(size)]
            ran = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
            table[kind].append(json.loads(ran.stdout.splitlines()[-1]))
            print(json.dumps(table[kind][-1]), flush=True)
    steps = {kind: [round(row["seconds"] / rows[0]["seconds"], 2) for row in rows] for kind, rows in table.items()}
    return {
        "name": "train_growth",
        "ratio": max(steps[kind][-1] / FACTORS[-1] for kind in sizes),
        "versus": "time that grows as the work does",
        "unit": "times, at 8 times the work",
        "device": torch.cuda.get_device_name()
        if CUDA
        else f"{torch.get_num_threads()} threads of {platform.machine()}",
        "details": {"factors": FACTORS, "seconds": steps, **table},
    }


if __name__ == "__main__":
    main()
