"""Pictures in the reward model: each turn sees its own, scores do not hang on batches or shared prefixes, and the
tower looks once."""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file
from tiny import seeded, tiny_config, tiny_folder, tiny_tokenizer
from torch.nn import functional as F
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    Dinov2Config,
    LlamaModel,
    LlavaConfig,
    PaliGemmaConfig,
    ResNetConfig,
    SiglipConfig,
    SiglipVisionConfig,
    SmolVLMConfig,
)

from armap_lite import reward
from armap_lite.display.tables import read_text
from armap_lite.llms.tokens import LineTokenizer
from armap_lite.reward import RewardConfig, TrainingConfig
from armap_lite.reward.data import pad
from armap_lite.reward.model import RewardNetwork, build
from armap_lite.reward.scorer import RewardModel
from armap_lite.reward.training import train
from armap_lite.storage import assets
from armap_lite.storage.former_names import FORMER_NAMES
from armap_lite.storage.store import caption
from armap_lite.trajectory import PreferencePair, Step, Task, Trajectory, transcript
from armap_lite.vision import projector
from armap_lite.vision.pictures import (
    PictureError,
    Pictures,
    Tower,
    encode,
)
from armap_lite.vision.projector import align, spelled
from armap_lite.vision.towers import EfficientNetLite0, efficientnet, transformer

TOKENIZER = tiny_tokenizer()
LINES = LineTokenizer(TOKENIZER)
COLOURS = {"red": (210, 40, 40), "blue": (40, 60, 210), "green": (40, 150, 60), "black": (20, 20, 20)}
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
SEES = {"image_size": 28, "patch_size": 7, **SHAPE}  # 16 patches
PREPARATION = {"size": {"height": 28, "width": 28}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test sees what another run kept of its towers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARMAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield assets.cache_dir()


def draw(path: Path, colour: str = "red", place: int = 0) -> str:
    """A square of one colour on white, 40 x 30; `place` moves it."""
    picture = Image.new("RGB", (40, 30), "white")
    ImageDraw.Draw(picture).rectangle((2 + place, 3, 22 + place, 24), fill=COLOURS[colour])
    picture.save(path)
    return str(path)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("album")
    return [draw(folder / f"{colour}.png", colour) for colour in COLOURS]


def save_model(path: Path, config: Any, preparation: dict = PREPARATION, seed: int = 0) -> str:
    """A random checkpoint of `config` as the hub has it, with how its pictures are prepared."""
    seeded(seed, lambda: AutoModel.from_config(config)).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(preparation), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("siglip"), SiglipVisionConfig(**SEES))


def network_with(tower: Tower | None, **config: Any) -> RewardNetwork:
    options = RewardConfig(**{"backbone": "tiny", "num_layers": 2, "trainable": "top:1", **config})
    return seeded(0, lambda: RewardNetwork(LlamaModel(tiny_config()), options, tower).eval())


@pytest.fixture(scope="module")
def network(siglip: str) -> RewardNetwork:
    return network_with(transformer(siglip, 4))


def walk(*pictures: str | None, start: str | None = None, task: str = "t") -> Trajectory:
    """One step for each of `pictures`, the picture of what the step led to."""
    shown = tuple(Step(f"click {i}", f"page {i}", picture) for i, picture in enumerate(pictures))
    return Trajectory(Task(task, "shop", "train", "a red shirt"), "welcome", shown, True, picture=start)


def by_hand(network: RewardNetwork, trajectory: Trajectory) -> float:
    """The reward by definition: words and projected pictures side by side, no ids for pictures, no mask."""
    pictures, embedding = network.pictures, network.backbone.get_input_embeddings()
    assert pictures

    def words(text: str) -> torch.Tensor:
        return embedding.words(torch.tensor(LINES(text)))  # [T, H]

    def seen(path: str | None) -> torch.Tensor:
        if path is None:
            return torch.zeros(0, 32)
        return embedding.projector(pictures.tower(pictures.tower.pixels(Path(path).read_bytes())[None])[0])  # [K, H]

    with torch.no_grad():
        start = embedding.words(torch.tensor([LINES.start]))
        parts = [start, words(f"{trajectory.task.instruction}\n{trajectory.start}\n"), seen(trajectory.picture)]
        for step in trajectory.steps:
            parts += [words(f"{step.action}\n{step.observation}\n"), seen(step.picture)]
        hidden = network.backbone(inputs_embeds=torch.cat(parts)[None], use_cache=False).last_hidden_state
        return float(network.head(hidden[0, -1]))


# Each turn sees its own picture.


def scores(network: RewardNetwork, walks: list[Trajectory]) -> list[float]:
    return RewardModel(network, TOKENIZER).score([t.task.instruction for t in walks], walks).tolist()


def test_each_turn_sees_its_own_picture(network: RewardNetwork, album: list[str], monkeypatch: pytest.MonkeyPatch):
    red, blue, green, _ = album
    walks = [walk(red, None, blue), walk(red, None, red), walk(None, red, blue), walk(blue, red, start=green)]
    expected = [by_hand(network, t) for t in walks]
    assert scores(network, walks) == pytest.approx(expected, abs=1e-4)
    assert min(abs(a - b) for i, a in enumerate(expected) for b in expected[:i]) > 1e-2

    own = Pictures.ids  # what the published code does: every turn gets the first picture
    monkeypatch.setattr(Pictures, "ids", lambda self, path: own(self, red))
    assert abs(scores(network, walks[:1])[0] - expected[0]) > 1e-2


turns = st.lists(st.none() | st.integers(0, 3), max_size=4)
walks = st.lists(st.tuples(st.none() | st.integers(0, 3), turns), min_size=1, max_size=5)


@pytest.mark.parametrize("memory", [{}, {"capacity": 400, "pack": 7}], ids=["roomy", "cramped"])
def test_shared_prefixes_and_padding_do_not_change_a_score(network: RewardNetwork, album: list[str], memory: dict):
    shared = RewardModel(network, TOKENIZER, **memory)

    @given(walks)
    @settings(max_examples=15)
    def holds(drawn: list) -> None:
        seen = lambda i: None if i is None else album[i]  # noqa: E731
        some = [walk(*map(seen, shown), start=seen(start)) for start, shown in drawn]
        rows = [encode(LINES, t, "a red shirt", 512, network.pictures)[0] for t in some]
        with torch.inference_mode():
            together = network(**pad(rows, TOKENIZER.pad_token_id)).tolist()
            single = [network(**pad([row], 0)).item() for row in rows]
        assert together == pytest.approx(single, abs=1e-4)
        assert shared.score(["a red shirt"] * len(some), some) == pytest.approx(together, abs=1e-4)

    holds()


shortest = st.tuples(st.none() | st.integers(0, 3), st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=4))


@given(shortest)
@settings(max_examples=10)
def test_a_picture_is_kept_whole_or_not_at_all(network: RewardNetwork, album: list[str], drawn: tuple):
    pictures = network.pictures
    assert pictures
    start, shown = drawn
    trajectory = walk(*(None if i is None else album[i] for i in shown), start=None if start is None else album[start])
    whole, uncut = encode(LINES, trajectory, "go", 10_000, pictures)
    assert not uncut and encode(LINES, trajectory, "go", len(whole), pictures) == (whole, False)
    for limit in range(8, len(whole)):
        ids, cut = encode(LINES, trajectory, "go", limit, pictures)
        assert cut and limit - 2 * (pictures.tower.tokens - 1) <= len(ids) <= limit
        head = next((i for i, (one, other) in enumerate(zip(ids, whole)) if one != other), len(ids))
        assert any(ids == whole[:i] + whole[len(whole) - len(ids) + i :] for i in range(head + 1))
        i = 0
        while i < len(ids):
            if ids[i] < pictures.vocabulary:
                i += 1
            else:
                first = ids[i]
                assert pictures.within(first) == 0 and ids[i : i + 4] == list(range(first, first + 4))
                i += 4


@given(shortest)
@settings(max_examples=10)
def test_what_is_read_of_a_text_is_shown_with_its_cut_and_its_pictures(siglip: str, album: list[str], drawn: tuple):
    start, shown = drawn
    trajectory = walk(*(None if i is None else album[i] for i in shown), start=None if start is None else album[start])
    whole = transcript(trajectory, "go")
    for most in (16, 500):
        text = read_text(
            RewardModel(network_with(transformer(siglip, 4), max_tokens=most), TOKENIZER), "go", trajectory
        )
        head, cut, tail = text.partition(" […] ")
        if cut:
            assert whole.startswith(head.partition(" [picture] ")[0].rstrip("\ufffd")) and head.startswith("go")
            assert tail.endswith("[picture]") == bool(trajectory.pictures and trajectory.steps[-1].picture)
        assert text == whole or cut
    assert read_text(None, "go", trajectory) == whole


def test_pictures_that_would_never_fit_are_refused(siglip: str):
    with pytest.raises(ValueError, match="max_tokens=20 leaves no room for pictures of 16 tokens; use at least 64"):
        network_with(transformer(siglip, 16), max_tokens=20)


# Text alone.


def test_text_stays_as_it_was(siglip: str, network: RewardNetwork, album: list[str]):
    plain = network_with(None)
    blind = [walk(album[0], album[1], start=album[2]), walk(None)]
    for t in blind:  # a model without eyes reads the same words, and a picture leaves no trace
        whole = [LINES.start, *LINES(transcript(t, "go"))]
        assert encode(LINES, t, "go", 30) == (whole if len(whole) <= 30 else whole[:15] + whole[-15:], len(whole) > 30)
    unseen = [walk(*[None] * len(t.steps)) for t in blind]
    assert scores(plain, blind) == scores(plain, unseen)
    assert scores(network, unseen) == pytest.approx(scores(plain, unseen), abs=1e-6)  # same seed, same backbone
    assert plain.learned().keys() == {n for n in network.learned() if "projector" not in n}


def test_a_text_model_saved_before_there_were_pictures_loads(tmp_path: Path):
    config = RewardConfig(backbone=tiny_folder(tmp_path / "backbone"), num_layers=2, trainable="top:1")
    network, tokenizer = build(config, "cpu")
    network.save(tmp_path / "model")
    before = RewardModel(network, tokenizer).score(["go"], [walk(None)])
    file = tmp_path / "model/reward.json"
    old = {k: v for k, v in json.loads(file.read_text(encoding="utf-8")).items() if not k.startswith("vision")}
    former = {name: was for was, name in FORMER_NAMES.items()}
    old = {former.get(name, name): value for name, value in old.items()}
    assert old.keys() == {"backbone", "keep", "train", "max_tokens"}
    file.write_text(json.dumps(old), encoding="utf-8")
    assert reward.load(tmp_path / "model").score(["go"], [walk(None)]).tolist() == before.tolist()


# Saving and loading.


@pytest.mark.parametrize("kind", ["top:1", "lora:4", "all"])
def test_a_saved_model_gives_the_same_scores(kind: str, siglip: str, album: list[str], tmp_path: Path):
    backbone = tiny_folder(tmp_path / "backbone")
    network, tokenizer = build(RewardConfig(backbone=backbone, num_layers=2, trainable=kind, vision=siglip), "cpu")
    learned = network.learned()
    assert {n.split(".projector.")[1] for n in learned if ".projector." in n} >= {"first.weight", "last.weight"}
    assert not any("words" in n for n in learned) or kind == "all"

    def move() -> None:
        for tensor in learned.values():
            tensor.add_(torch.randn_like(tensor), alpha=0.05)

    seeded(1, move)
    some = [walk(album[0], None), walk(album[1], album[2]), walk(None)]
    network.save(tmp_path / "model")
    expected = RewardModel(network, tokenizer).score(["go"] * 3, some)
    loaded = reward.load(tmp_path / "model")
    assert loaded.score(["go"] * 3, some) == pytest.approx(expected, abs=1e-5)
    fresh = reward.untrained(loaded.network.config).score(["go"] * 3, some)
    assert np.abs(fresh - expected).min() > 1e-3  # so what was saved is what made the scores


# Files.


def spoil(path: Path, how: str) -> str:
    draw(path)
    if how == "gone":
        path.unlink()
    elif how == "torn":
        path.write_bytes(path.read_bytes()[:60])
    else:
        path.write_text("<html>not found</html>", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("how", "why"), [("gone", "no such file"), ("torn", "not a whole picture"), ("text", "not a whole picture")]
)
def test_a_picture_that_cannot_be_read_is_named(how: str, why: str, network: RewardNetwork, tmp_path: Path):
    path = spoil(tmp_path / "shirt.png", how)
    with pytest.raises(
        PictureError, match=f"cannot read the picture {path}: .*{why}.*; make it again .* vision=None"
    ) as e:
        scores(network, [walk(path)])
    assert "\n" not in str(e.value)


def test_a_missing_picture_is_told_before_training_starts(siglip: str, tmp_path: Path):
    pairs = colour_pairs(tmp_path, 8)
    os.unlink(pairs[-1].rejected.steps[0].picture)
    seen = network_with(transformer(siglip, 1))
    with pytest.raises(PictureError, match="no such file"):
        train(pairs, tmp_path / "model", training=FAST, network=(seen, TOKENIZER), **CPU)
    assert not (tmp_path / "model-training").exists()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_pixels_are_the_whole_picture_in_the_tower_s_own_numbers(mode: str, siglip: str, tmp_path: Path):
    path = draw(tmp_path / "tall.png")
    Image.open(path).convert(mode).save(path)
    found = transformer(siglip, 4).pixels(Path(path).read_bytes())
    small = np.asarray(Image.open(path).convert("RGB").resize((28, 28), Image.Resampling.BICUBIC), np.float64) / 255
    for channel, (mean, std) in enumerate(zip([0.5, 0.4, 0.3], [0.5, 0.6, 0.7])):
        assert np.allclose(found[channel], (small[..., channel] - mean) / std, atol=1e-5)


# The tower looks once.


def counted(tower: Tower) -> list[int]:
    """How many pictures each pass of `tower` saw."""
    seen: list[int] = []
    tower.network.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    return seen


def test_features_are_computed_once_and_kept(
    siglip: str, album: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ARMAP_CACHE", str(tmp_path))
    cpu = torch.device("cpu")
    tower = transformer(siglip, 4)
    seen = counted(tower)
    first = Pictures(tower, 100)
    folder = first.folder
    assert [first.ids(path)[0] for path in (*album, *album)] == [100, 104, 108, 112] * 2
    features = first.features([2, 0], cpu)
    assert (sum(seen), features.shape) == (2, (2, 4, 32))
    first.features([0, 1, 2, 3], cpu)
    assert sum(seen) == 4
    again = Pictures(tower, 100)
    again.ids(album[0]), again.ids(album[2])
    assert torch.equal(again.features([1, 0], cpu), features)
    assert sum(seen) == 4  # from the disk
    assert {p.suffix for p in folder.iterdir()} == {".safetensors"} and len(list(folder.iterdir())) == 4

    for file in folder.iterdir():
        os.truncate(file, 30)
    third = Pictures(tower, 100)
    third.ids(album[2])
    assert torch.allclose(third.features([0], cpu), features[:1], atol=1e-6)
    assert sum(seen) == 5  # a broken file is made again


def test_where_features_cannot_be_kept_they_are_computed_all_the_same(siglip: str, album: list[str], tmp_path: Path):
    (tmp_path / "file").touch()
    tower = transformer(siglip, 4)
    first, kept = Pictures(tower, 100), Pictures(tower, 100)
    first.folder = tmp_path / "file/no-folder"
    first.ids(album[0]), kept.ids(album[0])
    cpu = torch.device("cpu")
    assert torch.equal(first.features([0], cpu), kept.features([0], cpu))


def test_what_another_tower_saw_is_not_used(siglip: str, own_cache: Path, tmp_path: Path):
    other = save_model(tmp_path / Path(siglip).name, SiglipVisionConfig(**SEES), seed=5)
    folders = [Pictures(transformer(path, k), 9).folder for path, k in ((siglip, 4), (siglip, 1), (other, 4))]
    assert len(set(folders)) == 3 and all(own_cache in folder.parents for folder in folders)
    assert Pictures(transformer(siglip, 4), 9).folder == folders[0]


# Training.

CPU = {"accelerator": "cpu", "enable_progress_bar": False}
FAST = TrainingConfig(lr=3e-3, batch_size=4, num_validations=2, patience=99, precision="32-true")


def colour_pairs(folder: Path, n: int) -> list[PreferencePair]:
    """The same words on both sides: only the picture tells the chosen from the rejected."""
    folder.mkdir(exist_ok=True)
    names = list(COLOURS)
    pairs = []
    for i in range(n):
        wanted, other = names[i % 4], names[(i + 1 + i // 4 % 3) % 4]
        sides = [walk(draw(folder / f"{c}-{i % 8}.png", c, i % 8), task=f"task-{i}") for c in (wanted, other)]
        pairs.append(PreferencePair(f"{i}", f"task-{i}", f"{wanted} {wanted}", *sides, "plain", 0))
    return pairs


@pytest.mark.parametrize("kind", ["top:1", "lora:4"])
def test_a_colour_is_learned_from_pictures_alone(
    kind: str, siglip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ARMAP_CACHE", str(tmp_path / "cache"))
    pairs = colour_pairs(tmp_path / "shop", 80)
    tower = transformer(siglip, 1)
    before = {name: tensor.clone() for name, tensor in tower.network.state_dict().items()}
    seen = counted(tower)
    network = network_with(tower, trainable=kind)
    frozen = {n: t.clone() for n, t in network.state_dict().items() if n not in network.learned()}
    config = dataclasses.replace(FAST, batch_size=16, epochs=8, lr=2e-2)
    found = train(pairs, tmp_path / "model", training=config, network=(network, TOKENIZER), seed=2, **CPU)
    assert found["val_accuracy"] >= 0.9
    files = {step.picture for p in pairs for side in (p.chosen, p.rejected) for step in side.steps}
    assert sum(seen) == len(files) < found["steps"] * 16  # each picture once, whatever the epochs
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.network.state_dict().items())
    assert all(torch.equal(tensor, frozen[n]) for n, tensor in network.state_dict().items() if n in frozen)
    saved = load_file(tmp_path / "model/weights.safetensors")
    assert saved.keys() == network.learned().keys() and any("projector" in name for name in saved)


def test_the_tokens_of_a_picture_become_the_words_of_its_caption_in_order(siglip: str, tmp_path: Path):
    network = network_with(transformer(siglip, 4))
    embedding = network.backbone.get_input_embeddings()
    sides = {"left": 0, "right": 13}
    looks = [(colour, side, i) for colour in COLOURS for side in sides for i in range(4)]
    paths = [draw(tmp_path / f"{c}-{side}-{i}.png", c, sides[side] + i) for c, side, i in looks]
    seen, words = (
        network.pictures.features([*map(network.pictures.number, paths)], torch.device("cpu")),
        embedding.words.weight,
    )
    before = {name: tensor.clone() for name, tensor in embedding.state_dict().items()}
    align(embedding.projector, seen, [f" {c} {side}" for c, side, _ in looks], words, LINES)
    after = embedding.state_dict()
    assert all(torch.equal(after[n], t) == ("projector" not in n) for n, t in before.items())
    assert all(p.grad is None for p in embedding.parameters())
    tokens = [list(dict.fromkeys(LINES(f" {c} {side}"))) for c, side, _ in looks]
    with torch.no_grad():
        shown = embedding.projector(seen)  # [32, 4, 32]
    everything = sorted({token for some in tokens for token in some})
    for k in range(3):  # the last token stands for all that is left
        some = [(i, row[k]) for i, row in enumerate(tokens) if len(row) > k]
        near = torch.cdist(shown[[i for i, _ in some], k], words[everything]).argmin(1)  # [some]
        right = [everything[n] == token for n, (_, token) in zip(near.tolist(), some)]
        assert len(right) > 8 and np.mean(right) > 0.95


def test_where_a_caption_ends_its_last_token_stands_for_all_that_is_left():
    words = torch.eye(5)
    nothing = torch.tensor([0.25, 0.25, 0.25, 0.25, 0])  # the mean of the four that occur
    wanted = spelled([[0, 1, 2], [3]], words, 2)  # [2, 2, 5]
    assert torch.allclose(wanted[0], torch.stack([words[0], words[1] + words[2] - nothing]))
    assert torch.allclose(wanted[1], torch.stack([words[3], nothing]))
    assert torch.allclose(spelled([[0, 1], [2, 3]], words, 1)[0, 0], words[0] + words[1] - nothing)


def test_a_projector_starts_from_captions_where_there_are_any(
    siglip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ARMAP_CACHE", str(tmp_path / "cache"))
    asked: list[Any] = []
    monkeypatch.setattr(projector, "align", lambda *told: asked.append((told[1].shape, told[2])))
    sides = [[walk(draw(tmp_path / f"{c}-{i}.png", c, i), task=f"t{i}") for c in COLOURS] for i in range(10)]
    pairs = [
        PreferencePair(f"{i}{c}", f"t{i}", f"{c} {i}", good, bad, "plain", 0)
        for i, some in enumerate(sides)
        for c, good, bad in zip(COLOURS, some, some[1:] + some[:1])
    ]

    def learn(name: str) -> Any:
        network = network_with(transformer(siglip, 1))
        start = {n: p.clone() for n, p in network.named_parameters() if ".projector." in n}
        train(pairs, tmp_path / name, training=FAST, network=(network, TOKENIZER), **CPU)
        saved = load_file(tmp_path / name / "weights.safetensors")
        return [bool(torch.equal(saved[n], tensor)) for n, tensor in start.items()]

    assert not any(learn("untold")) and not asked, "without captions it learns with the rest"
    pictures = sorted({picture for pair in pairs for picture in (*pair.chosen.pictures, *pair.rejected.pictures)})

    def tell(some: list[str]) -> None:
        for picture in some:
            alt = PngInfo()
            alt.add_text("Description", f"a {Path(picture).stem} square")
            with Image.open(picture) as image:
                image.save(picture, pnginfo=alt)
        caption.cache_clear()

    tell(pictures[:3])
    assert not any(learn("a few")) and not asked, "three captions do not decide for all the other pictures"
    tell(pictures[3:])
    same, [(shape, texts)] = learn("told"), asked
    assert len(same) == 6 and all(same), "what captions taught it stays, and is saved"
    assert shape[0] == len(texts) > 16
    assert all(re.fullmatch(r" a (red|blue|green|black)-\d square", text) for text in texts)  # the blank of words


def test_what_was_scored_can_be_learned_from(siglip: str, album: list[str], tmp_path: Path):
    network = network_with(transformer(siglip, 4))
    pictures = network.pictures
    assert pictures
    pictures.folder = tmp_path
    batch = pad([encode(LINES, walk(album[3]), "go", 512, pictures)[0]], 0)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        network(**batch)
    network(**batch).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in network.named_parameters() if "projector" in n)
    exact = pictures.tower(pictures.tower.pixels(Path(album[3]).read_bytes())[None])
    assert torch.equal(pictures.features([0], torch.device("cpu")), exact)  # not in the precision of the scorer


def test_a_process_whose_batch_has_no_picture_still_has_a_gradient(siglip: str, tmp_path: Path):
    network = network_with(transformer(siglip, 4))
    batch = pad([encode(LINES, walk(None), "go", 512, network.pictures)[0]], 0)
    alone = network(**batch)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        together = network(**batch)
        together.sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(alone, together)
    found = [p.grad for n, p in network.named_parameters() if "projector" in n]
    assert len(found) == 6 and all(grad is not None and not grad.any() for grad in found)


# Towers.


def conv(x: torch.Tensor, weights: dict, name: str, stride: int = 1) -> torch.Tensor:
    """A convolution padded so that ceil(size / stride) comes out, the odd pixel at the end."""
    weight = weights[name]
    size, kernel = x.shape[-1], weight.shape[-1]
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    x = F.pad(x, (total // 2, total - total // 2) * 2)
    return F.conv2d(x, weight, stride=stride, groups=x.shape[1] if weight.shape[1] == 1 else 1)


def norm(x: torch.Tensor, weights: dict, name: str) -> torch.Tensor:
    mean, var, scale, shift = (
        weights[f"{name}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-3).sqrt() * scale + shift


def lite0(weights: dict, pixels: torch.Tensor) -> dict[int, torch.Tensor]:
    """The blocks' outputs, by the published table: kernel, stride and repeats of each stage."""
    x = norm(conv(pixels, weights, "_conv_stem.weight", 2), weights, "_bn0").clamp(0, 6)
    outputs: dict[int, torch.Tensor] = {}
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    for i, stride in enumerate(strides):
        block, y = f"_blocks.{i}.", x
        if i:
            y = norm(conv(y, weights, f"{block}_expand_conv.weight"), weights, f"{block}_bn0").clamp(0, 6)
        y = norm(conv(y, weights, f"{block}_depthwise_conv.weight", stride), weights, f"{block}_bn1").clamp(0, 6)
        y = norm(conv(y, weights, f"{block}_project_conv.weight"), weights, f"{block}_bn2")
        x = outputs[i] = x + y if x.shape == y.shape else y
    return outputs


def random_lite0() -> dict[str, torch.Tensor]:
    """Random tensors under the checkpoint's names, with its classifier."""

    def make() -> dict[str, torch.Tensor]:
        weights = EfficientNetLite0().state_dict()
        for name, tensor in weights.items():
            if "_bn" in name and tensor.is_floating_point():
                tensor.copy_(
                    torch.rand_like(tensor) + 0.5
                    if "var" in name or "weight" in name
                    else torch.randn_like(tensor) * 0.1
                )
        head = {"_conv_head.weight": torch.zeros(1280, 320, 1, 1), "_fc.bias": torch.zeros(1000)}
        return weights | head

    return seeded(0, make)


def as_asset(path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """`data` in the place where the downloaded checkpoint lies."""
    asset = dataclasses.replace(
        assets.ASSETS["efficientnet-lite0"], sha256=hashlib.sha256(data).hexdigest(), size=len(data)
    )
    monkeypatch.setenv("ARMAP_CACHE", str(path))
    monkeypatch.setattr(assets, "ASSETS", {**assets.ASSETS, "efficientnet-lite0": asset})
    asset.path.parent.mkdir(parents=True)
    asset.path.write_bytes(data)


def test_the_embedded_tower_is_the_published_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    weights = random_lite0()
    torch.save(weights, tmp_path / "weights.pth")
    as_asset(tmp_path / "cache", (tmp_path / "weights.pth").read_bytes(), monkeypatch)
    tower = efficientnet(4)
    assert (tower.tokens, tower.size, tower.side) == (4, 376, 224)
    assert "converting" in capsys.readouterr().err
    efficientnet(1)
    assert capsys.readouterr().err == ""  # converted once

    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        outputs = lite0(weights, pixels)
    assert {i: tuple(outputs[i].shape[1:]) for i in (4, 10, 15)} == {
        4: (40, 28, 28),
        10: (112, 14, 14),
        15: (320, 7, 7),
    }
    found, at = tower(pixels), 0
    for block, chain in ((0, (0,)), (4, (3, 4)), (15, (15,))):  # what is added up in each
        mean = sum(weights[f"_blocks.{i}._bn2.bias"] for i in chain)
        spread = sum(weights[f"_blocks.{i}._bn2.weight"] ** 2 for i in chain).sqrt()
        even = (outputs[block] - mean[:, None, None]) / spread[:, None, None] / len(mean) ** 0.5
        expected = F.adaptive_avg_pool2d(even, 2).flatten(2).transpose(1, 2)  # [2, 4, C]
        assert torch.allclose(found[..., at : at + len(mean)], expected, atol=1e-3)
        at += len(mean)
    assert at == tower.size


class Surprise:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.save({"weight": Surprise(tmp_path / "ran")}, tmp_path / "evil.pth")
    as_asset(tmp_path / "cache", (tmp_path / "evil.pth").read_bytes(), monkeypatch)
    with pytest.raises(assets.AssetError, match="cannot convert .*efficientnet-lite0"):
        efficientnet(4)
    assert not (tmp_path / "ran").exists()


CASES: dict[str, tuple[Any, Callable[[Any, torch.Tensor], torch.Tensor]]] = {
    "siglip": (SiglipVisionConfig(**SEES), lambda m, x: m(x).last_hidden_state),
    "dual siglip": (
        SiglipConfig(text_config={"vocab_size": 9, **SHAPE}, vision_config=SEES),
        lambda m, x: m.vision_model(x).last_hidden_state,
    ),
    "dinov2": (Dinov2Config(**SEES), lambda m, x: m(x).last_hidden_state[:, 1:]),  # without the class token
    "resnet": (
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 32], depths=[1, 1], num_channels=3, layer_type="basic"),
        lambda m, x: m(x).last_hidden_state.flatten(2).transpose(1, 2),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_transformers_tower_by_folder(name: str, tmp_path: Path):
    config, patches = CASES[name]
    preparation = (
        PREPARATION if name != "dinov2" else {"crop_size": {"height": 28, "width": 28}, "size": {"shortest_edge": 32}}
    )
    path = save_model(tmp_path / "tower", config, preparation)
    model = AutoModel.from_pretrained(path).eval()
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        whole = patches(model, pixels)  # [2, N, 32]
    side = int(whole.shape[1] ** 0.5)
    for k in (1, 4):
        tower = transformer(path, k)
        assert (tower.side, tower.tokens, tower.size) == (28, k, 32)
        grid = whole.unflatten(1, (side, side))
        half = [slice(None)] if k == 1 else [slice(0, side // 2), slice(side // 2, None)]
        if side % 2 == 0 or k == 1:
            expected = torch.stack([grid[:, rows, columns].mean((1, 2)) for rows in half for columns in half], 1)
            assert torch.allclose(tower(pixels), expected, atol=1e-5)


@pytest.mark.parametrize("tokens", [0, 2, -4])
def test_tokens_that_are_no_square(tokens: int, siglip: str):
    with pytest.raises(ValueError, match=f"vision_tokens={tokens} is not a square; use 1, 4, 9 or 16"):
        transformer(siglip, tokens)


# Whole vision-language models.

TEXT = {k: v for k, v in tiny_config().to_dict().items() if k not in ("architectures", "dtype", "transformers_version")}
PLACEHOLDER = len(TOKENIZER)  # the id that stands for a picture in the model's own input
FAMILIES: dict[str, tuple[Any, int]] = {
    "smolvlm": (
        SmolVLMConfig(
            text_config=TEXT | {"vocab_size": PLACEHOLDER + 1},
            vision_config=SEES | {"model_type": "smolvlm_vision"},
            image_token_id=PLACEHOLDER,
            scale_factor=2,
        ),
        4,
    ),
    "llava": (
        LlavaConfig(
            text_config=TEXT | {"vocab_size": PLACEHOLDER + 1},
            vision_config=CLIPVisionConfig(**SEES),
            image_token_index=PLACEHOLDER,
        ),
        16,
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vision_language_model_reads_as_it_does_itself(family: str, album: list[str], tmp_path: Path):
    if family == "smolvlm" and Version(transformers.__version__) < Version("5.23"):
        pytest.skip("SmolVLM of this release takes a patch's side for the number of a picture's tokens")
    config, tokens = FAMILIES[family]
    path = save_model(tmp_path / "vlm", config)
    TOKENIZER.save_pretrained(path)
    network, _ = build(RewardConfig(backbone=path, num_layers=None, trainable="top:1", vision="own"), "cpu")
    network.eval()
    pictures = network.pictures
    assert pictures and pictures.tower.tokens == tokens
    some = [walk(album[0], None, album[2], start=album[1]), walk(None, album[3])]
    whole = AutoModel.from_pretrained(path).eval()
    for t in some:
        ids, _ = encode(LINES, t, "a red shirt", 512, pictures)
        shown = [p for p in (t.picture, *(step.picture for step in t.steps)) if p]
        pixels = torch.stack([pictures.tower.pixels(Path(p).read_bytes()) for p in shown])  # [P, 3, S, S]
        own = torch.tensor([[min(i, PLACEHOLDER) if i >= pictures.vocabulary else i for i in ids]])
        assert int((own == PLACEHOLDER).sum()) == tokens * len(shown)
        with torch.no_grad():
            hidden = whole(
                input_ids=own, pixel_values=pixels[None] if family == "smolvlm" else pixels
            ).last_hidden_state
            ours = network.backbone(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state
            expected = float(network.head(hidden[0, -1]))
        assert torch.allclose(ours[0, -1], hidden[0, -1], atol=1e-4)
        assert scores(network, [t])[0] == pytest.approx(expected, abs=1e-4)
    assert not any("vision" in n or "projector" in n or "connector" in n for n in network.learned())


def test_a_model_that_reads_pictures_otherwise_is_refused(tmp_path: Path):
    text = {"model_type": "gemma", "vocab_size": 300, "num_key_value_heads": 1, "head_dim": 16, **SHAPE}
    config = PaliGemmaConfig(
        text_config=text, vision_config=SEES | {"model_type": "siglip_vision_model"}, projection_dim=32
    )
    path = save_model(tmp_path / "vlm", config)
    TOKENIZER.save_pretrained(path)
    for spec in (path, tiny_folder(tmp_path / "llm")):
        with pytest.raises(ValueError, match="does not read pictures as LLaVA does.*vision='efficientnet-lite0'"):
            build(RewardConfig(backbone=spec, num_layers=None, vision="own"), "cpu")
