"""Training on what cannot teach, with sizes that make no sense, and on several ranks: what is said and what is done."""

import csv
import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
from test_training import CONFIG, RESUMED, fit, toy_pairs
from tiny import tiny_network, tiny_tokenizer

from armap_lite.reward import RewardConfig, TrainingConfig
from armap_lite.reward.data import PairDataModule
from armap_lite.reward.training import RewardModule, train
from armap_lite.trajectory import Step


def fake_pictures() -> Any:
    """One token a picture, by its name."""
    tower = SimpleNamespace(tokens=1)
    return SimpleNamespace(ids=lambda picture: [1000 + sum(map(ord, picture))], within=lambda one: 0, tower=tower)


def test_pairs_with_equal_sides_are_left_out_counted_and_said(capsys: pytest.CaptureFixture):
    pairs = toy_pairs(10)
    pairs[3] = dataclasses.replace(pairs[3], rejected=pairs[3].chosen)
    around = Step("1 " * 40, "left")  # what the two differ in goes with the middle
    long = [dataclasses.replace(pairs[5].chosen, steps=(around, Step(op, "left"), around)) for op in "+*"]
    pairs[5] = dataclasses.replace(pairs[5], chosen=long[0], rejected=long[1])
    data = PairDataModule(pairs, tiny_tokenizer(), max_tokens=48)
    assert data.left_out == 2 and len(data.train_pairs) + len(data.val_pairs) == 18
    assert all(one != other for one, other in data.train_tokens + data.val_tokens)
    assert "2 of 20 pairs have two equal sides in max_tokens=48, and are left out" in capsys.readouterr().err
    assert PairDataModule(pairs, tiny_tokenizer()).left_out == 1
    with pytest.raises(ValueError, match="2 of 2 pairs have two equal sides .* nothing to learn"):
        PairDataModule([pairs[3], pairs[5]], tiny_tokenizer(), max_tokens=48)


@pytest.mark.parametrize("seeing", [True, False])
def test_pictures_that_no_one_looks_at_are_said(seeing: bool, tmp_path: Path, capsys: pytest.CaptureFixture):
    pairs = toy_pairs(10)
    shown = dataclasses.replace(pairs[0].chosen, picture="one.png")
    same = dataclasses.replace(pairs[0], chosen=shown, rejected=dataclasses.replace(shown, picture="other.png"))
    if seeing:
        assert PairDataModule([same, *pairs[1:]], tiny_tokenizer(), pictures=fake_pictures()).left_out == 0
        return
    assert fit(tmp_path / "out", pairs=[same, *pairs[1:]])["left_out"] == 1
    said = capsys.readouterr().err
    assert "1 of 20 pairs have pictures" in said and "without pictures, and are left out" in said
    with pytest.raises(ValueError, match="1 of 1 pairs .* give vision"):
        PairDataModule([same], tiny_tokenizer())


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (RewardConfig, {"max_tokens": 7}),
        (TrainingConfig, {"batch_size": 0}),
        (TrainingConfig, {"val_fraction": 0.0}),
        (TrainingConfig, {"val_fraction": 1.0}),
        (TrainingConfig, {"epochs": 0}),
    ],
)
def test_sizes_that_make_no_sense_are_refused(kind: type, change: dict[str, Any]):
    with pytest.raises(ValueError, match=f"{next(iter(change))}=.*expected"):
        kind(**change)


def test_one_task_is_refused_before_a_backbone_is_loaded(tmp_path: Path):
    with pytest.raises(ValueError, match="2 pairs of 1 tasks cannot be split"):
        train(toy_pairs(1), tmp_path / "out", RewardConfig(backbone="nowhere/such-a-model"))


@pytest.mark.parametrize(("every", "steps"), [(20, [15]), (6, [5, 11, 15]), (8, [7, 15]), (1, list(range(16)))])
def test_the_last_step_is_a_point_of_the_curve(every: int, steps: list[int], tmp_path: Path):
    class Seldom(L.Callback):
        def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
            trainer.log_every_n_steps = every  # as on a GPU

    assert fit(tmp_path / "model", RESUMED, callbacks=[Seldom()])["steps"] == 16
    with open(tmp_path / "model-training/metrics.csv", encoding="utf-8", newline="") as file:
        found = [(int(row["step"]), row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]
    assert [step for step, _ in found] == steps and all(math.isfinite(float(loss)) for _, loss in found)


def test_each_rank_takes_the_batch_of_the_first(tmp_path: Path):
    module = RewardModule(tiny_network(0)[0], CONFIG, tmp_path)
    data = SimpleNamespace(batch_size=8)
    strategy = SimpleNamespace(broadcast=lambda mine: (2, 4, 12))  # what the first rank sends
    module._trainer = SimpleNamespace(
        datamodule=data, strategy=strategy, accumulate_grad_batches=1, val_check_interval=3
    )
    module.setup("fit")
    taken = (data.batch_size, module.trainer.accumulate_grad_batches, module.trainer.val_check_interval)
    assert taken == (2, 4, 12)
