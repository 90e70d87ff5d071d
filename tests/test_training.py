"""Training: the loss, the data, and that a run ends with the same weights however it was interrupted or spread."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny import puzzle, tiny_network, tiny_tokenizer

from armap_lite.llms.tokens import LineTokenizer
from armap_lite.reward import TrainingConfig, training
from armap_lite.reward.config import read_json
from armap_lite.reward.data import BucketSampler, PairDataModule, split_by_task
from armap_lite.reward.scorer import RewardModel
from armap_lite.reward.training import RewardModule, pairwise_loss, train
from armap_lite.trajectory import PreferencePair, Step, Trajectory

ROOT = Path(__file__).parents[1]
CPU = {"accelerator": "cpu", "enable_progress_bar": False}
CONFIG = TrainingConfig(lr=3e-3, batch_size=4, num_validations=4, patience=99, precision="32-true")


def toy_pairs(tasks: int, each: int = 2) -> list[PreferencePair]:
    """Pairs with a rule that carries over to other tasks: the chosen one ends with a sum, the other with a product."""
    pairs = []
    for i, k in itertools.product(range(tasks), range(each)):
        task = puzzle(i % 5 + 1, 2, 3, 4, id=f"task-{i}", split="train")
        first = Step(f"{k + 1} + {i} = {k + 1 + i}" * (1 + i % 3), "left", show="never")  # of different lengths
        last = (Step(f"6 {op} {i} = {k}", "left", show="never") for op in ("+", "*"))
        chosen, rejected = (Trajectory(task, "left", (first, step), True, show="never") for step in last)
        pairs.append(PreferencePair(f"{i}/{k}", task.id, task.instruction, chosen, rejected, "plain", 1))
    return pairs


def fit(out: Path, config: TrainingConfig = CONFIG, pairs: list | None = None, **options: Any) -> dict[str, float]:
    """`train` of the tiny network, always from the same start."""
    network = tiny_network(0, **options.pop("network", {}))
    return train(pairs or toy_pairs(20), out, training=config, seed=1, network=network, **CPU, **options)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "weights.safetensors")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    assert max(float((one[name] - other[name]).abs().max()) for name in one) <= tolerance


def curves(out: Path, column: str) -> dict[int, float]:
    """What was logged, step -> value."""
    with open(out.with_name(out.name + "-training") / "metrics.csv", encoding="utf-8") as file:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row[column]}


# The loss.


def test_pairwise_loss_by_hand():
    chosen, rejected = torch.tensor([2.0, -5.0]), torch.tensor([1.0, -2.0])
    plain = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(3))) / 2
    assert float(pairwise_loss(chosen, rejected)) == pytest.approx(plain)
    assert float(pairwise_loss(chosen, rejected, 0.01)) == pytest.approx(plain + 0.01 * 2)  # |mean of 3 and -7|
    assert float(pairwise_loss(-rejected, -chosen, 0.01)) == pytest.approx(plain + 0.01 * 2)
    assert float(pairwise_loss(chosen - 9, rejected - 9)) == pytest.approx(plain)  # only the difference counts
    assert float(pairwise_loss(torch.tensor([500.0]), torch.tensor([-500.0]))) == 0.0  # and no overflow
    assert float(pairwise_loss(torch.tensor([-500.0]), torch.tensor([500.0]))) == 1000.0


# The data.

task_lists = st.lists(st.integers(0, 12), min_size=1, max_size=60)


@given(task_lists, st.floats(0.01, 0.99), st.integers(0, 9))
def test_no_task_is_both_learned_from_and_tested_on(tasks: list[int], val_fraction: float, seed: int):
    blank = toy_pairs(1, 1)[0]
    pairs = [dataclasses.replace(blank, id=str(i), task_id=f"task-{task}") for i, task in enumerate(tasks)]
    count = max(1, round(val_fraction * len(set(tasks))))
    if count == len(set(tasks)):
        with pytest.raises(ValueError, match="cannot be split by task"):
            split_by_task(pairs, val_fraction, seed)
        return
    learned, tested = split_by_task(pairs, val_fraction, seed)
    assert sorted([*learned, *tested], key=lambda p: int(p.id)) == pairs
    aside = {p.task_id for p in tested}
    assert not {p.task_id for p in learned} & aside
    assert len(aside) == count
    assert (learned, tested) == split_by_task(pairs, val_fraction, seed)


def test_the_split_depends_on_the_seed():
    assert len({tuple(p.id for p in split_by_task(toy_pairs(20), 0.2, seed)[1]) for seed in range(5)}) > 1


sizes = st.lists(st.integers(1, 99), min_size=8, max_size=60)


@given(sizes, st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 5))
def test_each_pair_comes_once_an_epoch_and_ranks_share_them(
    lengths: list[int], batch: int, epochs: int, world: int, seed: int
):
    ranks = [list(BucketSampler(lengths, batch, epochs, seed, world, rank)) for rank in range(world)]
    assert len({len(r) for r in ranks}) == 1
    assert ranks == [list(BucketSampler(lengths, batch, epochs, seed, world, rank)) for rank in range(world)]
    together = [b for step in zip(*ranks) for b in step]
    an_epoch = -(-len(lengths) // batch)
    assert len(together) == epochs * an_epoch // world * world
    for epoch in range(epochs):
        seen = Counter(i for b in together[epoch * an_epoch : (epoch + 1) * an_epoch] for i in b)
        assert max(seen.values()) == 1
        left_over = len(together) < epochs * an_epoch and epoch == epochs - 1
        assert len(lengths) - len(seen) <= (batch * (world - 1) if left_over else 0)
    orders = [together[epoch * an_epoch : (epoch + 1) * an_epoch] for epoch in range(epochs)]
    assert an_epoch < 8 or all(one != other for one, other in itertools.combinations(orders, 2))


@given(sizes, st.integers(1, 4), st.integers(0, 40))
def test_skip_leaves_out_what_was_done(lengths: list[int], batch: int, done: int):
    whole = list(BucketSampler(lengths, batch, 2, 0, 1, 0))
    sampler = BucketSampler(lengths, batch, 2, 0, 1, 0, skip=done)
    iter(sampler)  # asked for and not used, as DataLoader does with workers
    assert list(sampler) == whole[done:]
    assert len(sampler) == len(whole)  # the length is that of the whole run: the learning rate depends on it


def test_batches_hold_pairs_of_like_length():
    lengths = [10 * (i % 10) + 10 for i in range(200)]
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in BucketSampler(lengths, 8, 1, 0, 1, 0)]
    assert sum(spread) / len(spread) < 25  # of 90, were they drawn blindly


def test_too_few_batches_for_the_devices():
    with pytest.raises(ValueError, match="2 batches do not suffice for 3 devices; use fewer, or smaller batches"):
        BucketSampler([1, 2], 1, 1, 0, 3, 0)


def test_a_batch_holds_the_chosen_first_then_their_rejected():
    tokenizer = tiny_tokenizer()
    data = PairDataModule(toy_pairs(10), tokenizer, batch_size=4, val_fraction=0.2, seed=3)
    assert (len(data.train_pairs), len(data.val_pairs)) == (16, 4)
    lines, texts = LineTokenizer(tokenizer), Counter()
    for batch in data.train_dataloader():
        ids, mask = batch["input_ids"], batch["attention_mask"]
        assert ids.shape == mask.shape == (8, int(mask.sum(-1).max()))
        rows = [tuple(row[: int(seen.sum())].tolist()) for row, seen in zip(ids, mask)]
        assert (mask.diff(dim=-1) <= 0).all()  # padded on the right
        texts.update(zip(rows[:4], rows[4:]))
    for pair in data.train_pairs:
        sides = (
            "\n".join([pair.instruction, *t.actions]) + "\n" for t in (pair.chosen, pair.rejected)
        )  # as an agent's transcript spells it
        assert texts[tuple((lines.start, *lines(text)) for text in sides)] == 1


def test_tasks_that_cannot_be_split_are_named():
    with pytest.raises(ValueError, match="3 pairs of 1 tasks cannot be split by task with val_fraction=0.2"):
        PairDataModule(toy_pairs(1, 3), tiny_tokenizer())


def test_long_pairs_are_shortened_and_counted(tmp_path: Path):
    metrics = fit(
        tmp_path / "model", dataclasses.replace(CONFIG, num_validations=1), toy_pairs(4), network={"max_tokens": 24}
    )
    assert metrics["shortened"] == 16  # two sides of eight pairs


# Training.


def test_the_rule_is_learned_and_carries_over_to_held_out_tasks(tmp_path: Path):
    metrics = fit(tmp_path / "model", dataclasses.replace(CONFIG, epochs=4, lr=1e-2), network={"trainable": "all"})
    loss, accuracy = curves(tmp_path / "model", "train_loss"), curves(tmp_path / "model", "train_accuracy")
    assert metrics["steps"] == len(loss) == 32
    assert sum(list(loss.values())[-4:]) < 0.2 * sum(list(loss.values())[:4])
    assert list(accuracy.values())[-4:] == [1.0] * 4
    assert metrics["val_accuracy"] == 1.0 == max(curves(tmp_path / "model", "val_accuracy").values())
    assert (metrics["train_pairs"], metrics["val_pairs"]) == (32, 8)
    fresh, tokenizer = tiny_network(0, trainable="all")
    fresh.load_learned(tmp_path / "model")
    model = RewardModel(fresh, tokenizer)
    pairs = toy_pairs(30)[-10:]  # of tasks that were in neither part
    texts = [p.instruction for p in pairs]
    assert (model.score(texts, [p.chosen for p in pairs]) > model.score(texts, [p.rejected for p in pairs])).all()


def test_tokens_counted_are_the_attended_ones(tmp_path: Path):
    metrics = fit(tmp_path / "model")
    data = PairDataModule(toy_pairs(20), tiny_tokenizer(), seed=1)
    assert metrics["tokens"] == sum(len(side) for pair in data.train_tokens for side in pair)


@pytest.mark.parametrize(("has", "same_as"), [(torch.bfloat16, "bf16-mixed"), (torch.float32, "32-true")])
def test_precision_is_what_the_device_computes_in(has: torch.dtype, same_as: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(training, "pick", lambda where: (torch.device(where), has))
    for name in ("auto", same_as):
        fit(tmp_path / name, dataclasses.replace(CONFIG, num_validations=1, precision=name), toy_pairs(6))
    assert all(torch.equal(weights(tmp_path / "auto")[k], v) for k, v in weights(tmp_path / same_as).items())
    assert read_json(tmp_path / "auto/training.json")["trained_on"]["training"]["precision"] == "auto"


@pytest.mark.parametrize("kind", ["top:1", "lora:4", "all"])
def test_only_what_should_learns(kind: str, tmp_path: Path):
    network, tokenizer = tiny_network(0, trainable=kind)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    train(toy_pairs(10), tmp_path / "model", training=CONFIG, network=(network, tokenizer), **CPU)
    learned = network.learned().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in learned), name
    assert weights(tmp_path / "model").keys() == learned


def test_gradient_checkpointing_computes_layers_again_and_changes_nothing(tmp_path: Path):
    runs = []
    for again in (False, True):
        network, tokenizer = tiny_network(0, trainable="all")
        passes: list[str] = []
        network.backbone.layers[0].mlp.register_forward_pre_hook(
            lambda module, *_, passes=passes: passes.append("train" if torch.is_grad_enabled() else "val")
        )
        config = dataclasses.replace(CONFIG, gradient_checkpointing=again)
        out = tmp_path / str(again)
        train(toy_pairs(8), out, training=config, network=(network, tokenizer), **CPU)
        runs.append((curves(out, "train_loss"), Counter(passes)["train"], weights(out)))
    (loss, once, plain), (same, twice, checkpointed) = runs
    assert twice == 2 * once > 0
    assert list(same.values()) == pytest.approx(list(loss.values()), abs=1e-5)
    assert_same(plain, checkpointed, CONFIG.lr / 10)  # sums in another order, see the two processes below


@pytest.mark.parametrize("checks", [10, 20])  # every second batch; each batch
def test_training_stops_early_when_held_out_accuracy_stands_still(checks: int, tmp_path: Path):
    config = TrainingConfig(lr=0.0, batch_size=1, num_validations=checks, patience=2)
    metrics = fit(tmp_path / "model", config, toy_pairs(25, 1))
    assert metrics["steps"] == 3 * 20 // checks  # the first validation is the best, two more are no better


@pytest.mark.parametrize(("monitor", "kept"), [("val_accuracy", 3), ("val_loss", 2)])
def test_the_best_model_is_kept_not_the_last(monitor: str, kept: int, tmp_path: Path):
    network, _ = tiny_network()
    module = RewardModule(network, dataclasses.replace(CONFIG, monitor=monitor), tmp_path / "model")
    found = [{"val_accuracy": a, "val_loss": b} for a, b in zip((0.5, 0.8, 0.6, 0.8, 0.7), (0.7, 0.6, 0.3, 0.4, 0.5))]
    for k, metrics in enumerate(found):
        torch.nn.init.constant_(network.head.weight, k)
        module.trainer = SimpleNamespace(callback_metrics=metrics, is_global_zero=True)  # type: ignore[assignment]
        module.on_validation_epoch_end()
    assert module.best == found[kept]
    assert float(weights(tmp_path / "model")["head.weight"].mean()) == kept  # of two equals the one that has seen more


def test_the_learning_rate_warms_up_and_goes_down(tmp_path: Path):
    seen: dict[str, list[float]] = {}
    for schedule in ("linear", "constant"):
        config = dataclasses.replace(CONFIG, batch_size=1, schedule=schedule, warmup=0.25, accumulate_grad_batches=2)
        module = RewardModule(tiny_network()[0], config, tmp_path)
        module.trainer = SimpleNamespace(estimated_stepping_batches=8, precision="32-true")  # type: ignore[assignment]
        made = module.configure_optimizers()
        rates = []
        for _ in range(8):
            rates.append(made["optimizer"].param_groups[0]["lr"] / config.lr)
            made["optimizer"].step()
            made["lr_scheduler"]["scheduler"].step()
        seen[schedule] = rates
    assert seen["linear"] == pytest.approx([1 / 2, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert seen["constant"] == pytest.approx([1 / 2, 1, 1, 1, 1, 1, 1, 1])


# Interrupted.


def break_at(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, call: int) -> None:
    """`owner.method` raises at its `call`-th call, and works again afterwards."""
    whole: Callable = getattr(owner, method)
    calls = itertools.count(1)

    def raising(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise InterruptedError
        return whole(*args, **kwargs)

    monkeypatch.setattr(owner, method, raising)


# 16 batches, validated and kept after every fourth; the second validation is the best, so that must not be forgotten
RESUMED = dataclasses.replace(CONFIG, epochs=2, warmup=0.1, lr=6e-2)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, dict]:
    out = tmp_path_factory.mktemp("whole") / "model"
    metrics = fit(out, RESUMED)
    accuracy = list(curves(out, "val_accuracy").values())
    assert len(accuracy) == 4 and accuracy[1] == max(accuracy) > max(accuracy[2:])
    return metrics, weights(out), curves(out, "train_loss")


@pytest.mark.parametrize(
    ("owner", "method", "call"),
    [
        (RewardModule, "training_step", 1),  # before anything
        (RewardModule, "training_step", 5),  # right after the first checkpoint
        (RewardModule, "training_step", 11),  # between two
        (RewardModule, "validation_step", 2),  # within a validation
        (RewardModule, "on_validation_epoch_end", 3),  # between a validation and its checkpoint
        (RewardModule, "on_save_checkpoint", 4),  # at the last
    ],
)
def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    owner: type, method: str, call: int, uninterrupted: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "model"
    break_at(monkeypatch, owner, method, call)
    with pytest.raises(InterruptedError):
        fit(out, RESUMED)
    kept = (tmp_path / "model-training/last.ckpt").is_file()
    assert kept == ((method, call) != ("training_step", 1))
    seen: list[int] = []
    step = RewardModule.training_step
    monkeypatch.setattr(RewardModule, "training_step", lambda m, b, i: (seen.append(i), step(m, b, i))[1])
    metrics = fit(out, RESUMED)

    whole, expected, loss = uninterrupted
    after = {"validation_step": 4, "on_validation_epoch_end": 8, "on_save_checkpoint": 12}
    done = after.get(method, (call - 1) // 4 * 4)
    assert seen == list(range(done, 16))  # it went on after the last checkpoint, not from the start
    assert_same(weights(out), expected)
    assert {k: v for k, v in metrics.items() if k != "seconds"} == {k: v for k, v in whole.items() if k != "seconds"}
    assert curves(out, "train_loss") == pytest.approx(loss, abs=1e-5)  # the curves are whole, too
    assert not (tmp_path / "model-training/last.ckpt").exists()


def test_a_finished_run_is_not_mixed_into_the_next(tmp_path: Path):
    fit(tmp_path / "model", RESUMED)
    fit(tmp_path / "model", dataclasses.replace(RESUMED, epochs=1))
    assert len(curves(tmp_path / "model", "train_loss")) == 8


def test_checkpoints_come_with_each_validation_also_where_gradients_are_accumulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # 32 batches; validations after 6, 12, ...
    config = dataclasses.replace(CONFIG, batch_size=1, accumulate_grad_batches=3, num_validations=4)
    whole = fit(tmp_path / "whole", config)
    break_at(monkeypatch, RewardModule, "training_step", 15)
    with pytest.raises(InterruptedError):
        fit(tmp_path / "model", config)
    seen: list[int] = []
    step = RewardModule.training_step
    monkeypatch.setattr(RewardModule, "training_step", lambda m, b, i: (seen.append(i), step(m, b, i))[1])
    assert fit(tmp_path / "model", config)["steps"] == whole["steps"] == 11
    assert seen == list(range(12, 32))
    assert_same(weights(tmp_path / "model"), weights(tmp_path / "whole"))


# More than one process.

TWO_PROCESSES = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import json, os
from pathlib import Path
import torch
from tiny import tiny_network
from test_training import CPU, DDP, toy_pairs
from armap_lite.reward.training import train

torch.set_num_threads(1)
network, tokenizer = tiny_network(0)
metrics = train(toy_pairs(20), Path("model"), training=DDP, seed=1, network=(network, tokenizer), strategy="ddp", **CPU)
rank = os.environ.get("LOCAL_RANK", "0")
torch.save(network.learned(), f"end-{{rank}}.pt")
Path(f"metrics-{{rank}}.json").write_text(json.dumps(metrics))
"""
DDP = dataclasses.replace(CONFIG, devices=2)


@pytest.mark.slow
def test_two_processes_end_with_one_model_that_of_one_process_with_the_double_batch(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES.format(tests=str(ROOT / "tests"), root=str(ROOT)), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        encoding="utf-8",
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    ends = [torch.load(tmp_path / f"end-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])

    # Two batches side by side make the same step as two batches one after the other, whose gradients are averaged.
    network, tokenizer = tiny_network(0)
    config = dataclasses.replace(DDP, devices=1, accumulate_grad_batches=2)
    single = train(toy_pairs(20), tmp_path / "single", training=config, seed=1, network=(network, tokenizer), **CPU)
    # Sums in another order differ in the last bits, which Adam makes larger: up to 1/30 of one step (lr) is allowed.
    assert_same(ends[0], network.learned(), DDP.lr / 30)
    assert_same(weights(tmp_path / "model"), weights(tmp_path / "single"), DDP.lr / 30)
    metrics = [json.loads((tmp_path / f"metrics-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert metrics[0]["steps"] == metrics[1]["steps"] == single["steps"]
    assert metrics[0]["val_accuracy"] == metrics[1]["val_accuracy"] == pytest.approx(single["val_accuracy"])
    assert metrics[0]["tokens"] == metrics[1]["tokens"] == single["tokens"]  # of all devices
