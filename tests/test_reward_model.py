"""The reward model: where it reads its number, what learns in it, how it is saved, and its fast scorer."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import puzzle, seeded, tiny_config, tiny_folder, tiny_network, tiny_tokenizer
from transformers import LlamaModel

from armap_lite import reward
from armap_lite.llms.device import load_to
from armap_lite.llms.tokens import LineTokenizer
from armap_lite.reward import RewardConfig
from armap_lite.reward.data import pad
from armap_lite.reward.model import RewardNetwork, build, last_attended
from armap_lite.reward.scorer import RewardModel
from armap_lite.trajectory import Step, Trajectory, transcript
from armap_lite.vision.pictures import encode

NETWORK, TOKENIZER = tiny_network()
NETWORK.eval()
KINDS = ["top:1", "lora:4", "all"]

token_rows = st.lists(  # special tokens too: a padding token inside a text, or as its last, is a token like any other
    st.lists(st.integers(0, len(TOKENIZER) - 1) | st.sampled_from(TOKENIZER.all_special_ids), min_size=1, max_size=12),
    min_size=1,
    max_size=5,
)
steps = st.lists(st.sampled_from(["8 * 3 = 24", "8 - 3 = 5", "5 + 4 = 9", "9 / 3 = 3", "1 + 1 = 2"]), max_size=5)
scored = st.lists(st.tuples(st.sampled_from(["obtain 24", "obtain 7\nnow", "é"]), steps), min_size=1, max_size=6)


def walk(actions: list[str]) -> Trajectory:
    steps = tuple(Step(action, "left", show="never") for action in actions)
    return Trajectory(puzzle(1, 3, 4, 8), "left: 1 3 4 8", steps, True, show="never")


def alone(network: RewardNetwork, row: list[int]) -> float:
    """The reward by definition: no padding, no mask, the head at the last token."""
    with torch.inference_mode():
        hidden = network.backbone(input_ids=torch.tensor([row]), use_cache=False).last_hidden_state  # [1, T, H]
        return float(network.head(hidden[0, -1]))


@given(token_rows, st.sampled_from([TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, 7]))
@settings(max_examples=25)
def test_the_reward_is_read_at_the_last_attended_token(rows: list[list[int]], fill: int):
    expected = [alone(NETWORK, row) for row in rows]
    with torch.inference_mode():
        rewards = NETWORK(**pad(rows, fill))  # [B]
    assert rewards.shape == (len(rows),)
    assert rewards.tolist() == pytest.approx(expected, abs=1e-4)


def test_the_last_position_would_be_the_wrong_place():
    rows = [[5, 6, 7, 8, 9, 10], [5, 6, 7]]
    with torch.inference_mode():
        batch = pad(rows, TOKENIZER.eos_token_id)
        hidden = NETWORK.backbone(**batch, use_cache=False).last_hidden_state  # [2, 6, H]
        wrong = NETWORK.head(hidden[:, -1])[:, 0]
    assert wrong[0] == pytest.approx(alone(NETWORK, rows[0]), abs=1e-4)
    assert abs(float(wrong[1]) - alone(NETWORK, rows[1])) > 0.01  # so the tests above tell the two apart


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6).filter(any), min_size=1, max_size=4))
def test_last_attended_is_the_last_1_of_any_mask(mask: list[list[bool]]):
    expected = [max(i for i, seen in enumerate(row) if seen) for row in mask]
    assert last_attended(torch.tensor(mask).long()).tolist() == expected


def test_rewards_keep_their_precision_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert NETWORK(**pad([[5, 6, 7]], 0)).dtype == torch.float32


# What is kept of the backbone, and what learns.


def test_keep_cuts_the_layers_above():
    full = seeded(3, lambda: LlamaModel(tiny_config()))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        hidden = full(ids, output_hidden_states=True).hidden_states  # embeddings, then each layer's output
        expected = full.norm(hidden[2])
        short = RewardNetwork(full, RewardConfig(num_layers=2, trainable="all"))
        assert torch.equal(short.backbone(ids).last_hidden_state, expected)
    assert seeded(
        3, lambda: RewardNetwork(LlamaModel(tiny_config()), RewardConfig(num_layers=None, trainable="all"))
    ).backbone.layers[2:]


@pytest.mark.parametrize("kind", KINDS)
def test_train_names_what_learns(kind: str):
    network, _ = tiny_network(trainable=kind)
    learned, every = network.learned().keys(), dict(network.named_parameters()).keys()
    if kind == "all":
        assert learned == every
    elif kind == "top:1":
        assert learned == {name for name in every if name.startswith(("head.", "backbone.layers.1.", "backbone.norm."))}
    else:
        assert learned == {name for name in every if name.startswith("head.") or "lora_" in name}
        adapted = {name.split(".")[-4] for name in learned if "lora_A" in name}
        assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
        assert network.learned()["backbone.layers.0.self_attn.q_proj.lora_A.default.weight"].shape == (4, 32)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_layers": 0}, "num_layers=0, but the backbone has 3 layers; choose 1 to that many"),
        ({"num_layers": 4}, "num_layers=4, but the backbone has 3 layers"),
        *(({"trainable": kind}, f"trainable='{kind}': expected") for kind in ("some", "top", "top:0", "lora:x", "")),
    ],
)
def test_wrong_options_are_named(config: dict, message: str):
    with pytest.raises(ValueError, match=message):
        tiny_network(**config)


# Saving and loading.


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


def trained(backbone: str, kind: str) -> RewardNetwork:
    """A network all of whose learned tensors differ from those it was built with."""

    def make() -> RewardNetwork:
        network, _ = build(RewardConfig(backbone=backbone, num_layers=2, trainable=kind), "cpu")
        for tensor in network.learned().values():
            tensor.add_(torch.randn_like(tensor), alpha=0.05)
        return network

    return seeded(1, make)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_gives_the_same_scores_without_a_pickle(
    kind: str, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network = trained(backbone, kind)
    walks = [walk(["8 * 3 = 24"]), walk(["8 - 3 = 5", "5 + 4 = 9"]), walk([])]
    texts = [t.task.instruction for t in walks]
    network.save(tmp_path / "model")
    head = {name: tensor.clone() for name, tensor in network.head.state_dict().items()}
    expected = RewardModel(network, tiny_tokenizer()).score(texts, walks)

    assert {file.name for file in (tmp_path / "model").iterdir()} == {"weights.safetensors", "reward.json"}
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("a pickle was read"))
    loaded = reward.load(tmp_path / "model")
    assert loaded.score(texts, walks) == pytest.approx(expected, abs=1e-5)
    assert all(torch.equal(tensor, head[name]) for name, tensor in loaded.network.head.state_dict().items())
    start = reward.untrained(loaded.network.config).score(texts, walks)
    assert np.abs(start - expected).max() > 1e-3  # so what was saved is what made the scores


def test_only_what_learned_is_saved(backbone: str, tmp_path: Path):
    for kind in KINDS:
        trained(backbone, kind).save(tmp_path / kind)
    size = {kind: (tmp_path / kind / "weights.safetensors").stat().st_size for kind in KINDS}
    assert size["lora:4"] < size["top:1"] < size["all"]


def test_a_save_that_breaks_off_leaves_the_model_before(backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network = trained(backbone, "top:1")
    network.save(tmp_path / "model")
    before = (tmp_path / "model/weights.safetensors").read_bytes()

    def full_disk(tensors: dict, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr("armap_lite.reward.model.save_file", full_disk)
        network.save(tmp_path / "model")
    assert (tmp_path / "model/weights.safetensors").read_bytes() == before
    network.save(tmp_path / "model")  # what the broken one left is not in the way
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("other", [{"layers": 2}, {"hidden_size": 48}])
def test_weights_of_another_backbone_are_refused(other: dict, backbone: str, tmp_path: Path):
    config = RewardConfig(backbone=backbone, num_layers=None, trainable="all")
    build(config, "cpu")[0].save(tmp_path / "model")
    wrong = str(tmp_path / "other")
    if "layers" in other:
        tiny_folder(tmp_path / "other", **other)
    else:
        shape = tiny_config().to_dict() | other | {"head_dim": 12}
        LlamaModel(type(tiny_config())(**shape)).save_pretrained(wrong)
        tiny_tokenizer().save_pretrained(wrong)
    (tmp_path / "model/reward.json").write_text(
        json.dumps(dataclasses.asdict(config) | {"backbone": wrong}), encoding="utf-8"
    )
    with pytest.raises(ValueError, match=f"its tensors do not fit backbone '{wrong}' .* train it again"):
        reward.load(tmp_path / "model")


def test_a_folder_without_a_model_is_named(tmp_path: Path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match=f"{path} holds no reward model"):
            reward.load(path)


# The scorer: shared prefixes, any batch.


@pytest.fixture(scope="module", params=[{}, {"capacity": 400, "pack": 16}], ids=["roomy", "cramped"])
def scorer(request: pytest.FixtureRequest) -> RewardModel:
    network, tokenizer = tiny_network(5, max_tokens=24)
    return RewardModel(network, tokenizer, **request.param)


@given(batch=scored)
@settings(max_examples=25)
def test_scores_are_those_of_the_padded_forward_whatever_was_scored_before(scorer: RewardModel, batch: list):
    texts, walks = [text for text, _ in batch], [walk(actions) for _, actions in batch]
    rows = [encode(scorer.lines, t, text, 24)[0] for text, t in zip(texts, walks)]
    with torch.inference_mode():
        expected = scorer.network(**pad(rows, TOKENIZER.pad_token_id)).tolist()
    assert scorer.score(texts, walks) == pytest.approx(expected, abs=1e-4)
    assert [scorer.score([x], [t])[0] for x, t in zip(texts, walks)] == pytest.approx(expected, abs=1e-4)


def test_a_shared_beginning_is_read_once_and_forgotten_on_reset():
    model = RewardModel(*tiny_network(5))
    walks = [walk(["8 * 3 = 24", f"{n} + 1 = {n + 1}"]) for n in range(1, 9)]
    texts = [t.task.instruction for t in walks]
    lengths = [len(encode(model.lines, t, x, 512)[0]) for x, t in zip(texts, walks)]
    first = model.score(texts, walks)
    read = model.forest.tokens_computed
    assert read < lengths[0] + 8 * 12 < sum(lengths)
    assert (model.score(texts[::-1], walks[::-1])[::-1] == first).all()
    assert model.forest.tokens_computed == read
    model.reset()
    assert model.score(texts, walks) == pytest.approx(first, abs=1e-5)
    assert model.forest.tokens_computed == 2 * read


def test_the_backbone_may_score_in_bf16_and_the_head_stays_in_fp32():
    walks = [walk([]), walk(["8 * 3 = 24"]), walk(["8 - 3 = 5", "5 + 4 = 9"])]
    texts = [t.task.instruction for t in walks]
    exact = RewardModel(*tiny_network(5)).score(texts, walks)
    model = RewardModel(load_to("cpu", "bfloat16", lambda dtype: tiny_network(5)[0]), TOKENIZER)
    assert model.network.backbone.dtype == torch.bfloat16 and model.network.head.weight.dtype == torch.float32
    assert {b.dtype for b in model.network.backbone.buffers()} == {torch.float32}  # rotary frequencies: unrounded
    rounded = model.score(texts, walks)
    assert rounded == pytest.approx(exact, abs=0.02) and not (rounded == exact).any()
    coarse = torch.from_numpy(rounded).bfloat16().double().numpy()
    assert (coarse != rounded).any()  # the sum over the last hidden state is not rounded


def test_every_instruction_needs_its_trajectory():
    with pytest.raises(ValueError):
        RewardModel(*tiny_network()).score(["one", "two"], [walk([])])


# Long texts.


@given(st.lists(st.text("ab ", max_size=9), max_size=8), st.integers(2, 60))
def test_a_long_text_loses_its_middle(actions: list[str], limit: int):
    lines, long = LineTokenizer(TOKENIZER), walk(actions)
    whole = [lines.start, *lines(transcript(long, "go"))]
    kept, cut = encode(lines, long, "go", limit)
    assert cut == (len(whole) > limit)
    if cut:
        assert len(kept) == limit
        assert kept == whole[: (limit + 1) // 2] + whole[len(whole) - limit // 2 :]
    else:
        assert kept == whole


def test_a_text_that_is_shortened_says_so():
    network, tokenizer = tiny_network(max_tokens=20)
    model = RewardModel(network, tokenizer)
    short, long = walk([]), walk(["8 * 3 = 24"] * 5)
    assert [model.encode("go", trajectory)[1] for trajectory in (short, long)] == [False, True]
    assert np.isfinite(model.score(["go"], [long])).all()


def test_more_layers_to_train_than_are_kept_are_refused():
    with pytest.raises(ValueError, match="trainable='top:3', but 2 layers are kept; choose up to top:2"):
        RewardNetwork(LlamaModel(tiny_config()), RewardConfig(num_layers=2, trainable="top:3"))
