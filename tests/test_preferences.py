"""Any preference data as pairs: the format is told by the columns, and the command trains on it."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from test_published import shop_row
from test_training import toy_pairs
from tiny import tiny_folder

from armap_lite import reward
from armap_lite.exchange import preferences
from armap_lite.exchange.preferences import read
from armap_lite.pipeline.commands import main
from armap_lite.storage.store import JsonlStore


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    """`rows` in the format that the file's name asks for."""
    if file.suffix == ".json":
        file.write_text(json.dumps(rows), encoding="utf-8")
    elif file.suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        file.write_text("".join(lines), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


SUFFIXES = (".json", ".jsonl", ".parquet")
SAYS = {"chosen": "four", "rejected": "five"}
USER = said("user", "2 + 2?")
TRL = {  # each of them: asked "2 + 2?", "four" is better than "five"
    "prompt and texts": {"prompt": "2 + 2?", **SAYS},
    "texts with one beginning": {side: f"2 + 2?\n{text}" for side, text in SAYS.items()},
    "prompt of messages": {"prompt": [USER], **{s: [said("assistant", t)] for s, t in SAYS.items()}},
    "messages alone": {side: [USER, said("assistant", text)] for side, text in SAYS.items()},
    "messages that repeat the prompt": {
        "prompt": "2 + 2?",
        **{side: [USER, said("assistant", text)] for side, text in SAYS.items()},
    },
    "a question": {"question": "2 + 2?", **SAYS},
    "an instruction": {"instruction": "2 + 2?", "input": "", **SAYS},
    "an input": {"input": "2 + 2?", **SAYS},
    "parts of text": {
        side: [said("user", [{"type": "text", "text": "2 + 2?"}]), said("assistant", [{"type": "text", "text": text}])]
        for side, text in SAYS.items()
    },
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", TRL)
def test_trl_rows(kind: str, suffix: str, tmp_path: Path):
    (pair,) = read(write(tmp_path / f"rows{suffix}", [TRL[kind]]))
    assert (pair.instruction, pair.chosen.start) == ("2 + 2?", "")
    assert (pair.chosen.actions, pair.rejected.actions) == (("four",), ("five",))


def test_a_conversation_keeps_its_turns_and_rows_with_one_system_prompt_are_several_tasks(tmp_path: Path):
    def row(question: str, answer: str) -> list[dict[str, Any]]:
        return [
            said("system", "Be short."),
            said("user", question),
            said("assistant", "look it up"),
            said("tool", "4 è grande"),
            said("assistant", answer),
        ]

    rows = [{"id": q, "chosen": row(q, "4"), "rejected": row(q, "5")} for q in ("a?", "b?", "b?")]
    pairs = read(write(tmp_path / "rows.jsonl", rows))
    assert [p.id for p in pairs] == ["a?", "b?", "b?"]
    assert pairs[0].instruction == "Be short.\na?"
    assert pairs[0].chosen.actions == ("look it up", "4") and pairs[0].changed_at == 1
    assert pairs[0].chosen.steps[0].observation == "4 è grande"
    assert pairs[0].task_id != pairs[1].task_id == pairs[2].task_id


def test_texts_without_a_common_beginning_are_tasks_of_their_own(tmp_path: Path):
    rows = [{"chosen": "good", "rejected": "bad"}, {"chosen": "fine", "rejected": "awful"}]
    pairs = read(write(tmp_path / "rows.json", rows))
    assert [(p.instruction, p.chosen.actions) for p in pairs] == [("", ("good",)), ("", ("fine",))]
    assert pairs[0].task_id != pairs[1].task_id


def test_words_that_begin_alike_are_not_cut(tmp_path: Path):
    (pair,) = read(write(tmp_path / "rows.json", [{"chosen": "The sun shines", "rejected": "The sundial"}]))
    assert (pair.instruction, pair.chosen.actions) == ("The", ("sun shines",))


@pytest.mark.parametrize("suffix", (".json", ".jsonl", ".parquet"))
def test_published_rows_find_their_pictures_beside_the_file(suffix: str, tmp_path: Path):
    rows = [{**shop_row(), **{f"output_{i}": shop_row()[f"output_{i}"] for i in (1, 2)}}]
    (pair,) = read(write(tmp_path / f"rows{suffix}", rows))
    assert (pair.id, pair.instruction) == ("17", "find a red shirt")
    assert pair.chosen.picture == str(tmp_path / "start.png")


def test_what_stage_2_writes(tmp_path: Path):
    pairs = toy_pairs(3)
    preferences.to_parquet(pairs, tmp_path / "pairs.parquet")
    with JsonlStore(tmp_path / "pairs.jsonl") as store:
        store.append({"id": "t", "drafted": 3, "contradicted": 1, "missing": 0, "idle": 0})
        for pair in pairs:
            store.append({"id": pair.id, "pair": pair.to_json()})
    assert read(tmp_path / "pairs.parquet") == read(tmp_path / "pairs.jsonl") == pairs


def test_a_stage_2_that_made_no_pair_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture):
    with JsonlStore(tmp_path / "pairs.jsonl") as store:
        for name in ("t/0", "t/1"):
            store.append({"id": name, "skipped": "nothing achieved", "counts": {}})
    assert main(["train", "--pairs", str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "out")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "stage 2 made no pair from 2 trajectories" in line and "collect more tasks" in line


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "a", "chosen": "x", "rejected": "x"}, "row 2: both sides are the same"),
        ({"prompt": "a", "chosen": "x", "rejected": None}, "row 2: .* neither may be empty"),
        ({"prompt": "a", "chosen": "x y", "rejected": "x  y\n"}, "row 2: .* are the same"),
        ({"prompt": "a", "chosen": 3, "rejected": "x"}, "row 2: 'chosen' is 3 .int"),
        ({"prompt": float("nan"), "chosen": "y", "rejected": "x"}, "row 2: 'prompt' is nan .float"),
        ({"prompt": "a", "chosen": [{"role": "user"}], "rejected": "x"}, "row 2: .*'content' of a message is missing"),
        ({"chosen": [USER, said("assistant", None)], "rejected": "x"}, "row 2: in 'chosen', 'content' .* is missing"),
        ({"chosen": "x", "rejected": ["y"]}, "row 2: 'rejected' is .*list"),
        (
            {"id": "odd", "chosen": [said("user", [{"type": "image"}])], "rejected": [said("user", "x")]},
            "row odd: .*part of type 'image'",
        ),
    ],
)
def test_a_malformed_row_is_named(row: dict[str, Any], why: str, tmp_path: Path):
    with pytest.raises(ValueError, match=why) as error:
        read(write(tmp_path / "rows.json", [TRL["prompt and texts"], row]))
    assert "repair the row or leave it out" in str(error.value) and "\n" not in str(error.value)


def test_a_system_prompt_and_columns_that_no_one_reads(tmp_path: Path, capsys: pytest.CaptureFixture):
    row = {"system": "Be short.", "question": "2 + 2?", **SAYS, "score": 3, "source": "x"}
    pairs = read(write(tmp_path / "rows.jsonl", [row, {**row, "id": "again", "instruction": "Add.", "input": "1 + 3"}]))
    assert [pair.instruction for pair in pairs] == ["Be short.\n2 + 2?", "Be short.\nAdd.\n2 + 2?\n1 + 3"]
    assert capsys.readouterr().err == f"{tmp_path / 'rows.jsonl'}: columns that are not read: score, source\n"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_published_rows_without_pictures_in_every_format(suffix: str, tmp_path: Path):
    says = {f"output_{i}": [{"from": "gpt", "value": text}] for i, text in enumerate(("five", "four"), 1)}
    row = {"id": "7", "conversations": [{"from": "human", "value": "2 + 2?"}], **says, "preference": 2}
    (pair,) = read(write(tmp_path / f"rows{suffix}", [row]))
    assert (pair.instruction, pair.chosen.actions, pair.rejected.actions) == ("2 + 2?", ("four",), ("five",))
    row["output_1"] = [{"from": "gpt", "value": " four\n"}]
    with pytest.raises(ValueError, match="row 7: both sides are the same"):
        read(write(tmp_path / f"rows{suffix}", [row]))


def test_files_as_other_tools_write_them(tmp_path: Path):
    row = {"prompt": "2 + 2?", "chosen": "four", "rejected": "five"}
    for suffix in (".jsonl", ".json"):
        file = write(tmp_path / f"rows{suffix}", [row])
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
        assert read(file)[0].rejected.actions == ("five",)


@pytest.mark.parametrize("suffix", (".jsonl", ".json"))
@pytest.mark.parametrize("encoding", ("utf-16", "latin-1", "empty"))
def test_a_file_that_cannot_be_read_is_named(suffix: str, encoding: str, tmp_path: Path):
    file = tmp_path / f"rows{suffix}"
    line = '{"prompt": "a", "chosen": "é", "rejected": "x"}\n'
    file.write_bytes(b"" if encoding == "empty" else line.encode(encoding))
    with pytest.raises(
        ValueError, match=rf"rows{suffix}.*({'not UTF-8' if encoding != 'empty' else 'no rows|not JSON'})"
    ):
        read(file)


def test_bytes_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"rows.parquet: row 1: 'chosen' is b'x' .bytes"):
        read(write(tmp_path / "rows.parquet", [{"chosen": b"x", "rejected": b"y"}]))


def test_a_malformed_pair_of_our_own_is_named(tmp_path: Path):
    line = {"id": "7", "pair": {"id": "7"}}
    with pytest.raises(ValueError, match="row 7: PreferencePair"):
        read(write(tmp_path / "pairs.jsonl", [line]))


def test_other_columns_are_named_with_what_is_expected(tmp_path: Path):
    with pytest.raises(
        ValueError, match="rows.json: columns question, best; expected 'chosen' and 'rejected'.*rename"
    ) as error:
        read(write(tmp_path / "rows.json", [{"question": "a", "best": "b"}]))
    assert "\n" not in str(error.value)
    (tmp_path / "rows.csv").touch()
    with pytest.raises(ValueError, match=r"rows.csv: .*ends with .jsonl, .json, .parquet; convert"):
        read(tmp_path / "rows.csv")
    (tmp_path / "rows.jsonl").write_text("{torn", encoding="utf-8")
    with pytest.raises(ValueError, match="rows.jsonl: it is not JSONL"):
        read(tmp_path / "rows.jsonl")


def test_the_command_trains_on_trl_rows(tmp_path: Path, capsys: pytest.CaptureFixture):
    rows = [{"prompt": f"{i} + 1?", "chosen": f"{i + 1}", "rejected": "no idea"} for i in range(12)]
    file, model = write(tmp_path / "rows.jsonl", rows), tiny_folder(tmp_path / "tiny")
    command = ["train", "--pairs", str(file), "--out", str(tmp_path / "out"), "--backbone", model, "--num-layers", "2"]
    command += [
        "--trainable",
        "all",
        "--epochs",
        "2",
        "--seed",
        "3",
        "--lr",
        "1e-3",
        "--trainer",
        '{"accelerator": "cpu"}',
    ]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "step 1 of 4" in shown and "10 pairs" in shown.splitlines()[-1]
    told = json.loads((tmp_path / "out/training.json").read_text(encoding="utf-8"))
    assert told["steps"] == 4 and told["trained_on"]["seed"] == 3
    settings = told["trained_on"]["training"], told["trained_on"]["reward"]
    assert (settings[0]["lr"], settings[1]["num_layers"], settings[1]["trainable"]) == (1e-3, 2, "all")
    scores = reward.load(tmp_path / "out").score(["1 + 1?"], [read(file)[1].chosen])
    assert scores.shape == (1,)
    assert main(command) == 0 and "before" in capsys.readouterr().out


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture):
    file = write(tmp_path / "rows.json", [{"question": "a", "best": "b"}])
    assert main(["train", "--pairs", str(file), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("error: ") and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main(["train", "--pairs", str(file), "--out", str(tmp_path / "out"), "--num-layers", "many"])
    assert "'many' is no int" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_one_clear_error(tmp_path: Path):
    for path, what in ((tmp_path / "none.jsonl", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(FileNotFoundError, match=rf"{path} {what}; expected a file of preference pairs \(\.jsonl"):
            read(path)


def test_json_that_is_nested_too_deep_is_named_with_the_file(tmp_path: Path):
    file = tmp_path / "deep.jsonl"
    file.write_text('{"chosen": ' + "[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match="deep.jsonl: it is not JSONL: .*; write it again"):
        read(file)
