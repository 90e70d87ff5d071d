"""An exported reward model scores as the kit does, read by transformers alone."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import puzzle, tiny_folder, tiny_tokenizer
from tokenizers import Regex, pre_tokenizers, trainers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BloomConfig,
    BloomModel,
    GPT2Config,
    GPT2Model,
    Mamba2Config,
    Mamba2Model,
    PreTrainedTokenizerFast,
)

from armap_lite import envs, reward
from armap_lite.envs.base import Environment
from armap_lite.exchange.export import export
from armap_lite.llms.tokens import LineTokenizer
from armap_lite.pipeline.commands import main
from armap_lite.reward import RewardConfig
from armap_lite.reward.data import pad
from armap_lite.reward.model import build
from armap_lite.trajectory import PreferencePair, Step, Trajectory, transcript
from armap_lite.vision.pictures import encode

# What the card's four lines do, where armap_lite cannot be imported.
ALONE = """
import json, sys
class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "armap_lite":
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, limit, texts = sys.argv[1], int(sys.argv[2]), json.load(sys.stdin)
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder)
def score(text):
    ids = tokenizer(text, verbose=False)["input_ids"]
    ids = ids if len(ids) <= limit else ids[: limit - limit // 2] + ids[-(limit // 2) :]
    return model(torch.tensor([ids])).logits.item()
print(json.dumps([score(text) for text in texts]))
"""


def walk(*actions: str, id: str = "t") -> Trajectory:
    steps = tuple(Step(action, "left", show="never") for action in actions)
    return Trajectory(puzzle(1, 3, 4, 8, id=id), "left: 1 3 4 8", steps, True, show="never")


WALKS = [walk("8 * 3 = 24"), walk("8 - 3 = 5", "5 + 4 = 9"), walk(), walk(*["1 + 1 = 2"] * 60)]
TEXTS = [t.task.instruction for t in WALKS]


def saved(folder: Path, **config: object) -> Path:
    """A reward model all of whose learned tensors differ from those it was built with."""
    network, _ = build(RewardConfig(**config), "cpu")  # type: ignore[arg-type]
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in network.learned().values():
            if tensor.numel() > 1:
                tensor.add_(torch.randn_like(tensor) * 0.1)
    network.save(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


@pytest.mark.parametrize(
    "config",
    [
        {"num_layers": 2, "trainable": "top:1"},
        {"num_layers": None, "trainable": "lora:4"},
        {"trainable": "all", "num_layers": 1},
    ],
)
def test_padded_batches_score_as_the_kit_does(config: dict, backbone: str, tmp_path: Path):
    model = saved(tmp_path / "model", backbone=backbone, max_tokens=64, **config)
    assert export(model, tmp_path / "out")["difference"] < 1e-4
    loaded = reward.load(model)
    expected = loaded.score(TEXTS, WALKS)
    assert np.ptp(expected) > 0.01
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = [transcript(t, text) for t, text in zip(WALKS, TEXTS)][:3]
    rows = [tokenizer(text)["input_ids"] for text in texts]
    assert rows == [loaded.encode(text, t)[0] for t, text in zip(WALKS[:3], TEXTS)]
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert classifier.num_labels == 1 and classifier.dtype == torch.float32
    assert classifier.base_model.config.num_hidden_layers == (config["num_layers"] or 3)
    with torch.inference_mode():
        found = classifier(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0]
    assert found.tolist() == pytest.approx(expected[:3], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(envs.ENVIRONMENTS))
def test_each_world_in_a_process_without_the_kit(name: str, backbone: str, tmp_path: Path):
    if name == "scienceworld":
        pytest.importorskip("scienceworld", reason="the simulator is an extra")
    model = saved(tmp_path / "model", backbone=backbone, max_tokens=200, num_layers=2, trainable="lora:4")
    export(model, tmp_path / "out")
    with envs.make(name) as env:
        walks = wander(env, 50)
    loaded, texts = reward.load(model), [t.task.instruction for t in walks]
    expected = loaded.score(texts, walks)
    assert len(walks) == 50 and len(set(expected.round(3))) > 30
    if name == "webshop":
        assert any(loaded.encode(x, t)[1] for x, t in zip(texts, walks)), "none lost its middle"
    scores = alone(tmp_path / "out", 200, [transcript(t) for t in walks])
    assert scores == pytest.approx(expected, abs=1e-4)


def wander(env: Environment, count: int) -> list[Trajectory]:
    """`count` trajectories of random actions: episodes as far as they had come."""
    rng, found = random.Random(0), []
    for task in env.tasks("train")[:count]:
        observation = env.reset(task)
        trajectory = Trajectory(task, observation.text)
        while not observation.done and len(trajectory.steps) < 10 and len(found) < count:
            action = rng.choice(env.admissible())
            observation = env.step(action)
            trajectory = trajectory.then(action, observation)
            found.append(trajectory)
    return found


def alone(folder: Path, limit: int, texts: list[str]) -> list[float]:
    command = [sys.executable, "-c", ALONE, str(folder), str(limit)]
    run = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True, encoding="utf-8")
    return json.loads(run.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda size: GPT2Model(GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=512)),
        lambda size: BloomModel(BloomConfig(vocab_size=size, hidden_size=32, n_layer=2, n_head=4)),
    ],
    ids=["gpt2", "bloom"],
)
def test_other_architectures(make, tmp_path: Path):
    tokenizer = tiny_tokenizer()
    make(len(tokenizer)).save_pretrained(tmp_path / "backbone")
    tokenizer.save_pretrained(tmp_path / "backbone")
    model = saved(
        tmp_path / "model", backbone=str(tmp_path / "backbone"), num_layers=None, trainable="all", max_tokens=64
    )
    assert export(model, tmp_path / "out")["difference"] < 1e-4
    network, _ = build(RewardConfig(**json.loads((model / "reward.json").read_text(encoding="utf-8"))), "cpu")
    network.load_learned(model)
    lines = LineTokenizer(tokenizer)
    rows = [encode(lines, t, text, 64)[0] for t, text in zip(WALKS, TEXTS)]
    with torch.inference_mode():
        expected = [network.eval()(**pad([row], 0)).item() for row in rows]
    scores = alone(tmp_path / "out", 64, [transcript(t) for t in WALKS])
    assert scores == pytest.approx(expected, abs=1e-4) and np.ptp(expected) > 0.01


def test_an_architecture_without_sequence_classification_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    tokenizer = tiny_tokenizer()
    config = Mamba2Config(num_heads=8, head_dim=8, vocab_size=len(tokenizer), hidden_size=32, state_size=8, n_groups=1,
                          num_hidden_layers=2, chunk_size=16)  # fmt: skip
    Mamba2Model(config).save_pretrained(tmp_path / "backbone")
    tokenizer.save_pretrained(tmp_path / "backbone")
    saved(tmp_path / "model", backbone=str(tmp_path / "backbone"), num_layers=None, trainable="all")
    capsys.readouterr()
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "no sequence classification for architecture 'mamba2'" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_whose_head_has_a_bias_is_to_be_trained_again(backbone: str, tmp_path: Path, capsys):
    """Heads of the first versions had one; transformers' heads have none."""
    model = saved(tmp_path / "model", backbone=backbone, num_layers=2, trainable="top:1")
    weights = load_file(model / "weights.safetensors")
    save_file(weights | {"head.bias": torch.ones(1)}, model / "weights.safetensors")
    capsys.readouterr()
    assert main(["export", str(model), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "head.bias" in error and "train it again" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


# The tokenizer.


@pytest.mark.parametrize("last", [None, "<eos>"], ids=["no padding token", "it ends texts of others"])
def test_padding_is_not_read_as_the_last_token(last: str | None, tmp_path: Path):
    folder = tmp_path / "backbone"
    tiny_folder(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = last
    tokenizer.save_pretrained(folder)
    export(saved(tmp_path / "model", backbone=str(folder), num_layers=2, trainable="top:1"), tmp_path / "out")
    found = AutoTokenizer.from_pretrained(tmp_path / "out")
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert found.pad_token_id == classifier.config.pad_token_id is not None
    texts = [transcript(t) for t in WALKS]
    with torch.inference_mode():
        together = classifier(**found(texts, padding=True, return_tensors="pt")).logits[:, 0].tolist()
        single = [classifier(**found(text, return_tensors="pt")).logits.item() for text in texts]
    assert together == pytest.approx(single, abs=1e-4)


def test_blank_lines_are_read_as_the_kit_does_and_no_chat_template_is_left(tmp_path: Path):
    """Llama 3's pre-tokeniser joins adjacent newlines: its tokens depend on how a text is cut into pieces."""
    folder = tmp_path / "backbone"
    tiny_folder(folder)
    spelling = tiny_tokenizer().backend_tokenizer
    spelling.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\s]+[\r\n]*|\s*[\r\n]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=322, special_tokens=["<bos>", "<eos>", "<pad>"], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))  # fmt: skip
    spelling.train_from_iterator(["a\n\nb\n\n\nc\n\n" * 20], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=spelling, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", chat_template="{{ 1 }}"
    )
    tokenizer.save_pretrained(folder)
    text, lines = "a\n\nb\n\n\nc\n", LineTokenizer(tokenizer)
    kit = [lines.start, *lines(text)]
    export(saved(tmp_path / "model", backbone=str(folder), num_layers=2, trainable="top:1"), tmp_path / "out")
    found = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert found(text)["input_ids"] == kit
    assert found.chat_template is None


# The card, and what lies beside it.


def pair(i: int) -> PreferencePair:
    good, bad = walk("8 * 3 = 24", id=f"d{i}"), walk("8 - 3 = 5", id=f"d{i}")
    return PreferencePair(f"p{i}", f"d{i}", "obtain 24", good, bad, "plain", 0)


@pytest.mark.slow
def test_the_card_s_figures_come_from_the_run(backbone: str, tmp_path: Path):
    run = tmp_path / "game24"
    saved(run / "reward_model", backbone=backbone, num_layers=2, trainable="lora:4", max_tokens=100)
    (run / "run.json").write_text(json.dumps({"env": "'game24'", "profile": "'fast'", "seed": "3"}), encoding="utf-8")
    (run / "training.json").write_text(
        json.dumps({"train_pairs": 1234, "val_pairs": 56, "val_accuracy": 0.875}), encoding="utf-8"
    )
    (run / "pairs.jsonl").write_text(
        "".join(json.dumps({"id": p.id, "pair": p.to_json()}) + "\n" for p in [pair(0)]), encoding="utf-8"
    )
    Path(backbone, "README.md").write_text("---\nlicense: bsd-3-clause\n---\n", encoding="utf-8")
    assert main(["export", str(run / "reward_model"), str(tmp_path / "one")]) == 0
    card = (tmp_path / "one/README.md").read_text(encoding="utf-8")
    assert "license: bsd-3-clause\n" in card.split("---")[1]
    assert "1,234 preference pairs of `game24`" in card and "| seed | 3 |" in card and "0.875, 56 pairs" in card
    assert "| pair accuracy | not measured |" in card
    assert "ids[:50] + ids[-50:]" in card

    margins = {"task_ids": ["a", "a", "b", "c"], "chosen": [1.0, 2.0, 3.0, 0.0], "rejected": [0.0, 0.0, 0.0, 1.0]}
    (run / "margins.json").write_text(json.dumps(margins), encoding="utf-8")
    assert main(["export", str(run / "reward_model"), str(tmp_path / "two")]) == 0
    assert "| pair accuracy | 0.750 (95 % interval 0.000 to 1.000), 4 pairs of 3 dev" in (
        tmp_path / "two/README.md"
    ).read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    examples = json.loads((tmp_path / "two/example.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert [e["text"] for e in examples] == [transcript(t, "obtain 24") for t in (pair(0).chosen, pair(0).rejected)]
    scores = alone(tmp_path / "two", 100, [e["text"] for e in examples])
    assert scores == pytest.approx([e["score"] for e in examples], abs=1e-5)


def test_a_folder_that_is_in_use_is_left_as_it_is(backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    model = saved(tmp_path / "model", backbone=backbone, num_layers=2, trainable="top:2")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine", encoding="utf-8")
    assert main(["export", str(model), str(tmp_path / "out")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert main(["export", str(tmp_path), str(tmp_path / "new")]) == 1
    assert "holds no reward model" in capsys.readouterr().err
