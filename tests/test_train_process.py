"""Training in a process of its own: from a notebook, interrupted, failing, and on other pairs than before."""

import asyncio
import contextlib
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
import pytest
import torch
from test_training import assert_same, break_at, toy_pairs, weights
from tiny import tiny_folder

from armap_lite import reward, synthesize
from armap_lite.exchange import preferences
from armap_lite.pipeline import commands, training_process
from armap_lite.pipeline.run import Run
from armap_lite.pipeline.training_process import TrainingError
from armap_lite.reward import training
from armap_lite.reward.config import RewardConfig, TrainingConfig, trained_on
from armap_lite.storage.former_names import FORMER_NAMES
from armap_lite.storage.store import JsonlStore
from armap_lite.trajectory import PreferencePair

CPU = {"accelerator": "cpu", "enable_progress_bar": False}
# It never ends before it is ended.
SLOW = TrainingConfig(lr=1e-3, batch_size=1, epochs=40, num_validations=320, patience=9999)
SHORT = TrainingConfig(lr=1e-2, batch_size=4, epochs=2, num_validations=4, patience=99)


@pytest.fixture
def config(tmp_path: Path) -> RewardConfig:
    return RewardConfig(backbone=tiny_folder(tmp_path / "tiny"), num_layers=2, trainable="top:1")


def stage_file(folder: Path, pairs: list[PreferencePair]) -> Path:
    """pairs.jsonl as stage 2 writes it."""
    folder.mkdir(exist_ok=True)
    (folder / "pairs.jsonl").unlink(missing_ok=True)
    with JsonlStore(folder / "pairs.jsonl") as store:
        for pair in pairs:
            store.append({"id": pair.id, "pair": pair.to_json()})
    return folder / "pairs.jsonl"


def wait_for(reached: Callable[[], Any], seconds: float = 300) -> None:
    limit = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < limit
        time.sleep(0.02)


def trainings(out: Path) -> list[psutil.Process]:
    """The processes that train into `out`, whoever started them."""
    found = []
    for running in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = running.cmdline()
            if "train" in command and str(out) in command and running.status() != psutil.STATUS_ZOMBIE:
                found.append(running)
    return found


NOTEBOOK = """
import json
from pathlib import Path
from armap_lite.pipeline import commands, training_process
from armap_lite.reward.config import RewardConfig, TrainingConfig

told = json.loads({settings!r})
reward, training = RewardConfig(**told["reward"]), TrainingConfig(**told["training"])
metrics = training_process.train(Path("pairs.jsonl"), Path("model"), reward, training, accelerator="cpu")
Path("metrics.json").write_text(json.dumps(metrics))
"""


@pytest.mark.slow
def test_two_processes_started_from_a_notebook_return_real_metrics(
    config: RewardConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stage_file(tmp_path, toy_pairs(20))
    both = dataclasses.replace(SHORT, devices=2)
    settings = json.dumps({"reward": dataclasses.asdict(config), "training": dataclasses.asdict(both)})
    cell = nbformat.v4.new_code_cell(NOTEBOOK.format(settings=settings))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), tmp_path / "train.ipynb")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    papermill.execute_notebook(tmp_path / "train.ipynb", tmp_path / "ran.ipynb", cwd=tmp_path, progress_bar=False)
    found = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert found == json.loads((tmp_path / "model/training.json").read_text(encoding="utf-8"))
    numbers = {name: value for name, value in found.items() if name != "trained_on"}
    assert all(math.isfinite(value) for value in numbers.values())
    assert 0 <= found["val_accuracy"] <= 1 and found["val_loss"] > 0 and found["seconds"] > 0
    assert (found["train_pairs"], found["val_pairs"]) == (32, 8)
    assert found["steps"] == 8  # 16 batches on two devices
    single = training_process.train(tmp_path / "pairs.jsonl", tmp_path / "single", config, SHORT, **CPU)
    assert (found["tokens"], single["steps"]) == (single["tokens"], 16)
    outputs = nbformat.read(tmp_path / "ran.ipynb", 4).cells[0].outputs
    shown = "".join(output.get("text", "") for output in outputs)
    assert not re.search(r"step \d+ of", shown)  # a bar, not lines
    assert not trainings(Path("model"))


@pytest.mark.slow
def test_a_killed_process_gives_one_error_and_the_next_goes_on(config: RewardConfig, tmp_path: Path):
    file, out = stage_file(tmp_path, toy_pairs(10)), tmp_path / "model"
    caught: list[TrainingError] = []

    def attempt() -> None:
        try:
            training_process.train(file, out, config, SLOW, **CPU)
        except TrainingError as error:
            caught.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    log = tmp_path / "model-training"
    wait_for((log / "last.ckpt").is_file)
    for running in trainings(out):
        running.kill()
    thread.join()
    assert "signal 9 (out of memory, perhaps)" in str(caught[0]) and "\n" not in str(caught[0])
    assert not out.exists()
    done = torch.load(log / "last.ckpt", weights_only=True)["global_step"]
    # The same settings, so that it goes on; all that is left of them is one validation of each step.
    thread = threading.Thread(target=attempt)
    thread.start()
    wait_for(lambda: (log / "attempt-001/metrics.csv").is_file() and (log / "attempt-001/metrics.csv").stat().st_size)
    wait_for(lambda: (log / "attempt-001/metrics.csv").read_text(encoding="utf-8").count("\n") > 1)
    for running in trainings(out):
        running.kill()
    thread.join()
    header, first, *_ = (log / "attempt-001/metrics.csv").read_text(encoding="utf-8").splitlines()
    assert int(first.split(",")[header.split(",").index("step")]) >= done > 0


@pytest.mark.slow
def test_a_process_that_fails_says_why_in_one_line(config: RewardConfig, tmp_path: Path, capsys: pytest.CaptureFixture):
    file, deeper = stage_file(tmp_path, toy_pairs(10)), dataclasses.replace(config, num_layers=9)
    why = r"^training failed: num_layers=9, but the backbone has 3 layers.* \[exit status 1\]$"
    with pytest.raises(TrainingError, match=why):
        training_process.train(file, tmp_path / "model", deeper, SHORT, **CPU)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupt_ends_it(config: RewardConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "model"

    class Interrupted(training_process.tqdm):
        def update(self, n: float = 1) -> None:
            assert trainings(out)
            raise KeyboardInterrupt

    monkeypatch.setattr(training_process, "tqdm", Interrupted)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        training_process.train(stage_file(tmp_path, toy_pairs(10)), out, config, SLOW, accelerator="cpu")
    assert not trainings(out) and time.monotonic() - start < 100


@pytest.mark.slow
def test_all_its_ranks_end_with_a_parent_that_is_killed(config: RewardConfig, tmp_path: Path):
    file, out = stage_file(tmp_path, toy_pairs(10)), tmp_path / "model"
    both = dataclasses.replace(SLOW, devices=2)
    code = "from pathlib import Path\nfrom armap_lite.pipeline import training_process as t\n"
    code += "from armap_lite.reward.config import *\n"
    code += f"t.train(Path({str(file)!r}), Path({str(out)!r}), {config!r}, {both!r}, **{CPU!r})"
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    wait_for((tmp_path / "model-training/last.ckpt").is_file)
    assert len(trainings(out)) == 2
    parent.kill()
    parent.wait()
    wait_for(lambda: not trainings(out), 20)


def test_ranks_that_outlive_the_first_end_with_it(config: RewardConfig, tmp_path: Path, monkeypatch):
    script = tmp_path / "python"  # its second rank holds its stdout open until its stdin ends
    script.write_text("#!/bin/sh\ntimeout 60 cat <&0 &\necho 'error: no room'\nexit 1\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    start = time.monotonic()
    with pytest.raises(TrainingError, match="no room .exit status 1"):
        training_process.train(tmp_path / "pairs.jsonl", tmp_path / "model", config, SHORT, **CPU)
    assert time.monotonic() - start < 30


def test_plans_with_a_model_that_another_process_finished_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = {"steps": 3, "trained_on": {"seed": 1}}
    (tmp_path / "training.json").write_text('{"steps": 2, "trained_on": {}}', encoding="utf-8")

    def wait(*settings: Any, **options: Any) -> dict[str, Any]:
        (tmp_path / "training.json").write_text(json.dumps(found), encoding="utf-8")
        (tmp_path / "plans.jsonl").touch()
        return found

    monkeypatch.setattr(training_process, "train", wait)
    training_process.stage(tmp_path, RewardConfig(), SHORT)
    assert {file.name for file in tmp_path.iterdir()} == {"training.json", "plans.jsonl"}


@pytest.fixture
def stage(config: RewardConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """`Run.train`: whether it trained. To save time, training itself is in this process, and stage 2 is complete."""
    trained: list[Path] = []

    def here(file: Path, out: Path, *settings: Any, **options: Any) -> dict[str, Any]:
        trained.append(out)
        training.train(preferences.read(file), out, *settings, **options)
        return json.loads((out / "training.json").read_text(encoding="utf-8"))

    def stage(pairs: list[PreferencePair], **changes: Any) -> bool:
        stage_file(tmp_path / "run", pairs)
        run = Run("game24", "fast", tmp_path, training=dataclasses.replace(SHORT, **changes), reward=config.backbone)
        run.settings = dataclasses.replace(run.settings, reward=config)
        run.folder = tmp_path / "run"
        before = len(trained)
        asyncio.run(run.train(**CPU))
        return len(trained) > before

    async def complete(run: Run) -> list[PreferencePair]:
        return synthesize.load(run.path("pairs.jsonl"))

    monkeypatch.setattr(training_process, "train", here)
    monkeypatch.setattr(Run, "pairs", complete)
    return stage


def test_other_pairs_train_anew_and_the_same_do_not(
    stage: Callable[..., bool], tmp_path: Path, capsys: pytest.CaptureFixture
):
    folder, pairs = tmp_path / "run", toy_pairs(10)
    assert stage(pairs)
    first = weights(folder / "reward_model")
    told = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert told["trained_on"]["pairs_sha256"] == trained_on(pairs, RewardConfig(), SHORT, 0)["pairs_sha256"]
    assert training_process.metrics(folder / "training.json").keys() == told.keys() - {"trained_on"}
    capsys.readouterr()
    assert not stage(pairs) and capsys.readouterr().err == ""
    (folder / "plans.jsonl").write_text("planned with the first model\n", encoding="utf-8")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        break_at(patch, training.RewardModule, "training_step", 7)  # of 10, after three validations
        stage(toy_pairs(11))
    assert "trained anew" in capsys.readouterr().err
    assert (folder / "reward_model-training/best").is_dir()
    assert json.loads((folder / "training.json").read_text(encoding="utf-8")) == told  # the model before is whole
    assert_same(weights(folder / "reward_model"), first, 0.0)
    assert (folder / "plans.jsonl").is_file() and reward.load(folder / "reward_model")
    assert stage(toy_pairs(11))
    second = weights(folder / "reward_model")
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert json.loads((folder / "training.json").read_text(encoding="utf-8"))["trained_on"] != told["trained_on"]
    assert not (folder / "plans.jsonl").exists() and (folder / "plans.jsonl.old").is_file()
    assert stage(toy_pairs(11), lr=1e-3)


def test_a_field_that_a_later_version_adds_trains_nothing_anew(
    stage: Callable[..., bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "run/training.json"
    assert stage(toy_pairs(10))
    known = json.loads(file.read_text(encoding="utf-8"))
    for kind, field in (("training", "gradient_clip_val"), ("reward", "vision_tokens")):  # as if they were new
        del known["trained_on"][kind][field]
    file.write_text(json.dumps(known), encoding="utf-8")
    assert not stage(toy_pairs(10))
    assert stage(toy_pairs(10), gradient_clip_val=0.5)


@pytest.mark.parametrize("torn", ['{"trained_on": {', "[1]"])
def test_a_torn_file_is_named(torn: str, tmp_path: Path, config: RewardConfig):
    file, log = tmp_path / "training.json", tmp_path / "model-training"
    file.write_text(torn, encoding="utf-8")
    with pytest.raises(ValueError, match=r"training.json .*delete it"):
        training_process.is_current(file, [], config, SHORT, 0)
    log.mkdir()
    (log / "started.json").write_text(torn, encoding="utf-8")
    with pytest.raises(ValueError, match=r"started.json .*delete it"):
        training.train(toy_pairs(10), tmp_path / "model", config, SHORT, **CPU)


def test_what_a_training_depends_on():
    pairs = toy_pairs(3)
    kinds = [
        trained_on(pairs, RewardConfig(), TrainingConfig(), 0),
        trained_on(pairs[::-1], RewardConfig(), TrainingConfig(), 0),  # their order decides the batches
        trained_on(pairs[:-1], RewardConfig(), TrainingConfig(), 0),
        trained_on(
            [dataclasses.replace(pairs[0], instruction="other"), *pairs[1:]], RewardConfig(), TrainingConfig(), 0
        ),
        trained_on(pairs, RewardConfig(num_layers=None), TrainingConfig(), 0),
        trained_on(pairs, RewardConfig(), TrainingConfig(lr=1.0), 0),
        trained_on(pairs, RewardConfig(), TrainingConfig(), 1),
    ]
    assert all(one != other for i, one in enumerate(kinds) for other in kinds[:i])
    assert kinds[0] == json.loads(json.dumps(trained_on(pairs, RewardConfig(), TrainingConfig(), 0)))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"keep":', "is torn"),
        ("[]", "holds [], no JSON object"),
        ('{"keep": 3, "num_layers": 4}', "'keep' is the former name of 'num_layers', which is there too"),
        ('{"blob": 1}', "RewardConfig has no field ['blob']; it has ['backbone', "),
        ('{"max_tokens": "x"}', "max_tokens='x': expected int"),
        ('{"max_tokens": true}', "max_tokens=True: expected int"),
    ],
)
def test_a_reward_json_that_cannot_be_read_is_one_clear_error(content: str, fault: str, tmp_path: Path):
    file = tmp_path / "reward.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{re.escape(str(file))}.*{re.escape(fault)}.*; train the model again"):
        reward.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"schedule": "cosine"}, "schedule='cosine': expected one of linear, constant"),
        ({"monitor": "val_margin"}, "monitor='val_margin': expected one of val_accuracy, val_loss"),
        ({"warmup": 1.0}, "warmup=1.0: expected a share"),
        ({"warmup": math.nan}, "warmup=nan: expected a share"),
        ({"patience": 0}, "patience=0: expected at least 1"),
        ({"epochs": 0.5}, "epochs=0.5: expected int"),
        ({"lr": -1.0}, "lr=-1.0: expected a number, at least 0"),
    ],
)
def test_a_setting_that_cannot_be_trained_with_is_refused_at_once(field: dict[str, Any], expected: str):
    with pytest.raises(ValueError, match=re.escape(expected)):
        TrainingConfig(**field)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trainer", "[]"], "argument --trainer: '[]' is no JSON object"),
        (["--trainer", "{bad"], "argument --trainer: '{bad' is no JSON object"),
    ],
)
def test_an_option_that_cannot_be_read_is_refused(options: list[str], said: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        commands.main(["train", "--pairs", "p.jsonl", "--out", "o", *options])
    assert said in capsys.readouterr().err


def test_a_field_that_has_another_name_now_trains_nothing_anew(stage: Callable[..., bool], tmp_path: Path):
    file = tmp_path / "run/training.json"
    assert stage(toy_pairs(10))
    known = json.loads(file.read_text(encoding="utf-8"))
    former = {name: was for was, name in FORMER_NAMES.items()}
    for kind in ("training", "reward"):
        known["trained_on"][kind] = {former.get(k, k): value for k, value in known["trained_on"][kind].items()}
    assert known["trained_on"]["training"]["checks"] == SHORT.num_validations
    file.write_text(json.dumps(known), encoding="utf-8")
    assert not stage(toy_pairs(10))
    assert stage(toy_pairs(10), num_validations=2)
