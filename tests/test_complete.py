"""A stage that was broken off is finished by whoever needs its output, byte for byte as if nothing had happened."""

import asyncio
import contextlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tiny import cuts, tiny_folder, train_here

from armap_lite import collect, envs, planners, synthesize
from armap_lite.exchange import preferences
from armap_lite.pipeline import training_process
from armap_lite.pipeline.run import Run
from armap_lite.reward import TrainingConfig

pytestmark = pytest.mark.slow

STAGES = {"trajectories.jsonl": "trajectories", "pairs.jsonl": "pairs", "plans.jsonl": "plans"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The policy is of one layer, the reward model of as many as the profile keeps."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("policy", "reward")}
    return {name: tiny_folder(folder, layers=1 if name == "policy" else 16) for name, folder in made.items()}


@contextlib.contextmanager
def opened(folder: Path, model: dict[str, str]) -> Iterator[Run]:
    sizes: dict[str, Any] = {"collect_tasks": 18, "samples": 2, "num_proposals": 1, "dev_tasks": 2, "test_tasks": 6}
    options: dict[str, Any] = {"planners": {"sampling": {}, "best_of_n": {"n": 2}}, "group": 2}
    options["training"] = TrainingConfig(batch_size=8, num_validations=1, val_fraction=0.5)
    run = Run("game24", "fast", folder, **model, **sizes, **options)
    with contextlib.closing(run.env):
        yield run


@pytest.fixture(scope="module")
def whole(model: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which nothing was broken off."""
    folder = tmp_path_factory.mktemp("whole")
    with opened(folder, model) as run, pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_process, "train", train_here)
        asyncio.run(run.train(accelerator="cpu", enable_progress_bar=False))
        asyncio.run(run.plan())
    return folder


def test_a_whole_run_is_left_as_it_is(whole: Path, model: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys):
    for stage in ("collect", "synthesize", "plan"):
        monkeypatch.setattr(Run, stage, lambda *_, **__: pytest.fail("a complete stage was done again"))
    with opened(whole, model) as run:
        written = run.path("pairs.parquet").stat().st_mtime_ns
        for stage in STAGES.values():
            assert asyncio.run(getattr(run, stage)())
        assert run.path("pairs.parquet").stat().st_mtime_ns == written
    assert "Incomplete" not in capsys.readouterr().err


@pytest.mark.parametrize("name", STAGES)
def test_what_was_broken_off_is_finished_byte_for_byte(
    name: str, whole: Path, model: dict[str, str], tmp_path: Path, capsys
):
    expected = (whole / "game24" / name).read_bytes()
    for i, cut in enumerate(cuts(expected[:-40], random.Random(1), 1)):  # between lines, and within one
        folder = tmp_path / str(i)
        shutil.copytree(whole, folder)
        with opened(folder, model) as run:
            run.path(name).write_bytes(expected[:cut])
            found = asyncio.run(getattr(run, STAGES[name])())
            assert run.path(name).read_bytes() == expected
            load = {"trajectories": collect.load, "pairs": synthesize.load, "plans": planners.load}[STAGES[name]]
            assert found == load(whole / "game24" / name)
        said = capsys.readouterr().err
        assert said.count("Incomplete ") == 1 and "finishing them now" in said


def test_stage_two_finishes_stage_one_first(whole: Path, model: dict[str, str], tmp_path: Path, capsys):
    shutil.copytree(whole, tmp_path / "run")
    with opened(tmp_path / "run", model) as run:
        for name in ("pairs.jsonl", "pairs.parquet"):
            run.path(name).unlink()
        lines = run.path("trajectories.jsonl").read_bytes().splitlines(keepends=True)
        run.path("trajectories.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
        asyncio.run(run.synthesize())
        for name in ("trajectories.jsonl", "pairs.jsonl", "pairs.parquet"):
            assert run.path(name).read_bytes() == (whole / "game24" / name).read_bytes(), name
    assert "Incomplete trajectories" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["missing", "torn", "older", "of other pairs"])
def test_the_table_holds_the_pairs_of_the_file_beside_it(how: str, whole: Path, model: dict[str, str], tmp_path: Path):
    shutil.copytree(whole, tmp_path / "run")
    with opened(tmp_path / "run", model) as run:
        table = run.path("pairs.parquet")
        pairs = synthesize.load(run.path("pairs.jsonl"))
        if how == "missing":
            table.unlink()
        elif how == "torn":
            table.write_bytes(table.read_bytes()[:-100])
        elif how == "older":
            preferences.to_parquet(pairs[:-1], table)
        else:
            rows = [{"id": p.id, "instruction": "another"} for p in pairs]
            Dataset.from_list(rows).to_parquet(str(table))
        asyncio.run(run.pairs())
        found = Dataset.from_parquet(str(table)).to_list()
    assert [json.loads(row["chosen"]) for row in found] == [p.chosen.to_json() for p in pairs]
    assert [row["instruction"] for row in found] == [p.instruction for p in pairs]


def test_a_stage_is_complete_by_its_ids_not_by_its_file(tmp_path: Path):
    with envs.make("game24") as env:
        tasks = env.tasks("train")[:2]
    file = tmp_path / "some.jsonl"
    assert not collect.complete(file, tasks, 2) and not planners.complete(file, tasks, ["sampling"])
    assert not synthesize.complete(file, [])  # no file yet, not even an empty one
    file.write_text("", encoding="utf-8")
    assert not collect.complete(file, tasks, 2) and not planners.complete(file, tasks, ["sampling"])
    ids = [f"{task.id}#{k}" for task in tasks for k in range(2)]
    for n in range(5):
        file.write_text("".join(json.dumps({"id": id}) + "\n" for id in ids[:n]), encoding="utf-8")
        assert collect.complete(file, tasks, 2) == (n == 4)
    file.write_text("".join(json.dumps({"id": f"sampling/{task.id}"}) + "\n" for task in tasks), encoding="utf-8")
    assert planners.complete(file, tasks, ["sampling"])
    assert not planners.complete(file, tasks, ["sampling", "greedy"])
