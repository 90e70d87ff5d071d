"""Nothing that someone else wrote is deleted by training or by an export."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_training import fit, toy_pairs
from tiny import tiny_folder

from armap_lite.exchange import preferences
from armap_lite.pipeline.commands import main
from armap_lite.reward.config import RewardConfig, TrainingConfig, trained_on
from armap_lite.storage import folders

SHORT = TrainingConfig(lr=1e-2, batch_size=4, num_validations=1)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("taken", ["prefs/pairs.jsonl", "prefs", "prefs-training/pairs.jsonl", "prefs-training"])
def test_what_is_no_reward_model_is_left_alone(taken: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    file = tmp_path / taken
    file.parent.mkdir(exist_ok=True)
    file.write_text("precious", encoding="utf-8")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="prefs"):
        fit(tmp_path / "prefs", SHORT)
    assert main(["train", "--pairs", str(file), "--out", str(tmp_path / "prefs")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and ("give a new folder" in line or "give another name" in line)
    assert tree(tmp_path) == before


def test_a_model_is_replaced_and_what_lies_beside_it_is_not(tmp_path: Path):
    out, log = tmp_path / "prefs", tmp_path / "prefs-training"
    for beside in ("prefs.old", "prefs.partial"):
        (tmp_path / beside).mkdir()
        (tmp_path / beside / "note").write_text("precious", encoding="utf-8")
    fit(out, SHORT)
    assert {file.name for file in out.iterdir()} == folders.MODEL
    (log / "note").write_text("precious", encoding="utf-8")
    first = tree(out)
    fit(out, SHORT, toy_pairs(12))
    assert tree(out)["weights.safetensors"] != first["weights.safetensors"]
    kept = ("prefs.old/note", "prefs.partial/note", "prefs-training/note")
    assert all((tmp_path / name).read_text(encoding="utf-8") == "precious" for name in kept)
    assert {path.name for path in tmp_path.iterdir()} == {"prefs", "prefs-training", "prefs.old", "prefs.partial"}


@pytest.mark.parametrize("command", ["train", "export"])
def test_the_folder_one_stands_in_is_no_new_one(command: str, tmp_path: Path, capsys, monkeypatch):
    fit(tmp_path / "model", SHORT)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    words = ["--pairs", "none.jsonl", "--out", "."] if command == "train" else ["../model", "."]
    assert main([command, *words]) == 1
    assert "'.' is no name of a new folder" in capsys.readouterr().err


def test_a_second_training_waits_and_uses_the_first_one_s_model(tmp_path: Path, capsys: pytest.CaptureFixture):
    file, out = tmp_path / "pairs.json", tmp_path / "prefs"
    rows = [{"prompt": f"{i}?", "chosen": "four", "rejected": "five"} for i in range(10)]
    file.write_text(json.dumps(rows), encoding="utf-8")
    command = ["train", "--pairs", str(file), "--out", str(out), "--backbone", tiny_folder(tmp_path / "tiny")]
    command += [
        "--num-layers",
        "2",
        "--trainable",
        "top:1",
        "--num-validations",
        "1",
        "--trainer",
        '{"accelerator": "cpu"}',
    ]
    with folders.alone(out):
        second = subprocess.Popen(
            [sys.executable, "-m", "armap_lite", *command], stderr=subprocess.PIPE, text=True, encoding="utf-8"
        )
        assert second.stderr and "is being trained by another process" in second.stderr.readline()
        out.mkdir()  # by the first one, as soon as it is complete
        pairs, config = preferences.read(file), RewardConfig(backbone=command[6], num_layers=2, trainable="top:1")
        source = trained_on(pairs, config, TrainingConfig(num_validations=1), 0)
        (out / "training.json").write_text(json.dumps({"trained_on": source}), encoding="utf-8")
    assert second.wait(60) == 0 and second.stderr.read() == ""
    assert {file.name for file in out.iterdir()} == {"training.json"}  # nothing was trained


def test_options_of_a_model_are_refused_where_a_backbone_is_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = [
        "--pairs",
        "none.json",
        "--out",
        str(tmp_path / "out"),
        "--backbone",
        "smollm2-135m-instruct dtype=float16",
    ]
    assert main(["train", *words]) == 1
    assert "expected a name without options" in capsys.readouterr().err
