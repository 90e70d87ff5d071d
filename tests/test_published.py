"""Rows of the published data sets as preference pairs."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_vision import FAST, draw, network_with, siglip  # noqa: F401 (a fixture)
from tiny import tiny_tokenizer

from armap_lite.exchange.preferences import convert, read
from armap_lite.llms.tokens import LineTokenizer
from armap_lite.reward.training import train
from armap_lite.trajectory import PreferencePair, transcript
from armap_lite.vision.pictures import encode
from armap_lite.vision.towers import transformer


def read_published(rows: list[dict[str, Any]], folder: Path | str = ".") -> list[PreferencePair]:
    return convert(rows, Path(folder) / "rows.json")


def turn(who: str, value: str) -> dict[str, str]:
    return {"from": who, "value": value}


def shop_row(**changes: Any) -> dict[str, Any]:
    """Two walks of several turns, three pages with pictures."""
    row = {
        "id": 17,
        "image": ["start.png", "red.png", "blue.png"],
        "conversations": [turn("human", "find a red shirt"), turn("human", "<image>\nwelcome")],
        "output_1": [turn("gpt", "click[b1]"), turn("human", "a shirt <image>"), turn("gpt", "click[buy now]")],
        "output_2": [turn("gpt", "click[b2]"), turn("human", "<image>\na shirt"), turn("gpt", "click[buy now]")],
        "preference": 2,
    }
    return row | changes


def test_turns_become_steps_and_marks_the_pictures_of_their_turn():
    (pair,) = read_published([shop_row()], "album")
    assert (pair.id, pair.instruction, pair.changed_at, pair.origin) == ("17", "find a red shirt", 0, "published")
    assert (pair.chosen.start, pair.chosen.picture) == ("welcome", "album/start.png")
    assert [(s.action, s.observation, s.picture) for s in pair.chosen.steps] == [
        ("click[b2]", "a shirt", "album/blue.png"),
        ("click[buy now]", "", None),
    ]
    assert [s.picture for s in pair.rejected.steps] == ["album/red.png", None]
    assert pair.rejected.actions == ("click[b1]", "click[buy now]")
    words = " ".join(transcript(pair.chosen, pair.instruction).split())
    assert words == "find a red shirt welcome click[b2] a shirt click[buy now]"
    assert PreferencePair.from_json(pair.to_json()) == pair


def test_no_picture_is_lost_where_two_turns_follow_each_other():
    asked = [turn("human", "find a red shirt"), turn("human", "one <image>"), turn("human", "two <image>")]
    (pair,) = read_published([shop_row(conversations=asked, output_1=turn("gpt", "buy"), preference=1)], "album")
    assert (pair.chosen.start, pair.chosen.picture) == ("one", "album/start.png")
    assert [(s.action, s.picture) for s in pair.chosen.steps] == [("two", "album/red.png"), ("buy", None)]


def test_preference_says_which_output_is_chosen():
    first, second = (read_published([shop_row(preference=p)])[0] for p in (1, 2))
    assert (first.chosen, first.rejected) == (second.rejected, second.chosen)


def test_one_turn_and_no_picture():
    row = shop_row(
        conversations=[turn("human", "4 9 10 13")],
        output_1=turn("gpt", "13 - 9 = 4"),
        output_2=turn("gpt", "4 * 9 = 36"),
    )
    del row["image"]
    (pair,) = read_published([row])
    assert pair.chosen.actions == ("4 * 9 = 36",) and pair.chosen.picture is None
    assert not any(step.picture for step in (*pair.chosen.steps, *pair.rejected.steps))


def test_the_only_picture_of_a_row_is_that_of_every_mark():
    (pair,) = read_published([shop_row(image="page.png")])
    assert {pair.chosen.picture, pair.chosen.steps[0].picture, pair.rejected.steps[0].picture} == {"page.png"}


def test_rows_that_ask_the_same_are_one_task():
    other = [turn("human", "find a blue shirt"), turn("human", "<image>")]
    pairs = read_published([shop_row(), shop_row(id=18), shop_row(id=19, conversations=other)])
    assert pairs[0].task_id == pairs[1].task_id != pairs[2].task_id
    assert all(p.task_id == p.chosen.task.id == p.rejected.task.id for p in pairs)


def test_actions_that_begin_alike():
    longer = [turn("gpt", "click[b1]"), turn("human", "a shirt <image>"), turn("gpt", "click[xl]")]
    shorter = longer[:2]
    assert read_published([shop_row(output_2=longer)])[0].changed_at == 1
    assert read_published([shop_row(output_2=shorter)])[0].changed_at == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"image": ["one.png", "two.png"]}, "2 pictures for 3 marks <image>"),
        ({"image": None}, "0 pictures for 3 marks <image>"),
        (
            {"conversations": [turn("human", "find"), turn("human", "hello")], "image": "a.png"}
            | {"output_1": turn("gpt", "one"), "output_2": turn("gpt", "two")},
            "1 pictures for 0 marks <image>",
        ),
        ({"preference": 0}, "preference is 0, not 1 or 2"),
        ({"output_1": turn("gpt", "<image> <image> <image>"), "image": "a.png"}, "one turn has 3 marks"),
        ({"output_1": None}, "it needs conversations, output_1, output_2 and preference"),
        ({"conversations": [{"from": "human"}]}, "it needs conversations"),
        ({"conversations": [], "image": "a.png"}, "it needs conversations"),
    ],
)
def test_a_row_that_is_not_as_described_is_named(change: dict, why: str):
    with pytest.raises(ValueError, match=f"row 17: .*{why}") as error:
        read_published([shop_row(**change)])
    assert "\n" not in str(error.value)


def test_only_an_end_of_line_ends_a_row(tmp_path: Path):
    row = {"id": "r", "conversations": [], "preference": 1}
    row |= {"conversations": [{"from": "human", "value": "a \u2028b\x85c"}]}
    row |= {f"output_{i}": {"from": "gpt", "value": str(i)} for i in (1, 2)}
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(row, ensure_ascii=False)}\n\n", encoding="utf-8")
    assert [pair.instruction for pair in read(file)] == ["a \u2028b\x85c"]


def test_files_of_rows(tmp_path: Path):
    rows = [shop_row(), shop_row(id=18, preference=1)]
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read(tmp_path / "rows.json") == read(tmp_path / "rows.jsonl") == read_published(rows, tmp_path)


def test_rows_train_a_model_that_sees(siglip: str, tmp_path: Path):  # noqa: F811
    for name, colour in (("start", "black"), ("red", "red"), ("blue", "blue")):
        draw(tmp_path / f"{name}.png", colour)
    rows = [
        shop_row(id=i, conversations=[turn("human", f"find shirt {i}"), turn("human", "<image>\nwelcome")])
        for i in range(10)
    ]
    pairs = read_published(rows, tmp_path)
    network = network_with(transformer(siglip, 4))
    pictures = network.pictures
    assert pictures
    ids, _ = encode(LineTokenizer(tiny_tokenizer()), pairs[0].chosen, "go", 512, pictures)
    shown = dict.fromkeys(pictures.paths[(i - pictures.vocabulary) // 4] for i in ids if i >= pictures.vocabulary)
    assert [Path(path).name for path in shown] == ["start.png", "blue.png"]
    network_and_tokenizer = (network, tiny_tokenizer())
    options = {"accelerator": "cpu", "enable_progress_bar": False}
    found = train(pairs, tmp_path / "model", training=FAST, network=network_and_tokenizer, **options)
    assert (found["train_pairs"], found["val_pairs"]) == (8, 2)
