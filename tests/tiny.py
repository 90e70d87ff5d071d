"""Models small enough to be made on the spot: random transformers with a real tokenizer, and scripted ones."""

import functools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

from armap_lite import envs
from armap_lite.envs.base import SimulatorError
from armap_lite.envs.game24 import Game24, instruction
from armap_lite.llms.base import Choice, Completion, LanguageModel
from armap_lite.llms.local import LocalLM
from armap_lite.reward.config import RewardConfig, TrainingConfig, read_json
from armap_lite.reward.model import RewardNetwork
from armap_lite.trajectory import Observation, Task, Trajectory

WORLDS = [pytest.param(name, marks=[pytest.mark.slow] * (name != "game24")) for name in envs.ENVIRONMENTS]
TEXT = [
    "Use the numbers 1 4 8 8 to obtain 36.\n8 * 4 = 32\n8 / 2 = 4\n12 - 8 = 4\n3 + 3 = 6\n6 * 4 = 24\n",
    Game24.guide + "\n",
]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on a few lines: it spells any text, and merges some of what Game of 24 is made of."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_spelling()), bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )


@functools.cache
def _spelling() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<bos>", "<eos>", "<pad>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer.to_str()


def tiny_config(layers: int = 3) -> LlamaConfig:
    tokenizer = tiny_tokenizer()
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        initializer_range=0.3,  # ten times the usual: what it says depends on what it read, and is far from uniform
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )


def seeded(seed: int, make: Callable[[], Any]) -> Any:
    """What `make` makes from torch seed `seed`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def tiny_lm(seed: int = 0, **options: Any) -> LocalLM:
    """A `LocalLM` (fp32) on a random three-layer Llama; `options` are those of `LocalLM`."""
    model = seeded(seed, lambda: LlamaForCausalLM(tiny_config()))
    return LocalLM(model, tiny_tokenizer(), name=f"tiny-{seed}", **options)


def tiny_network(seed: int = 0, **config: Any) -> tuple[RewardNetwork, PreTrainedTokenizerFast]:
    """An untrained reward network on a random Llama, and its tokenizer; `config` are fields of `RewardConfig`."""
    settings = RewardConfig(**{"backbone": "tiny", "num_layers": 2, "trainable": "top:1", **config})
    return seeded(seed, lambda: RewardNetwork(LlamaModel(tiny_config()), settings)), tiny_tokenizer()


def tiny_folder(path: Path, layers: int = 3, seed: int = 0) -> str:
    """A folder that both `llms.load` and a `RewardConfig.backbone` take."""
    seeded(seed, lambda: LlamaForCausalLM(tiny_config(layers))).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return str(path)


def train_here(
    pairs: Path, out: Path, reward: RewardConfig, training: TrainingConfig, *, seed: int = 0, **options: Any
) -> dict[str, Any]:
    """In the place of `training_process.train`, for tests of what comes before and after: no process of its own."""
    from armap_lite.exchange import preferences
    from armap_lite.reward.training import train  # imports Lightning, which other tests need not wait for

    quiet = {**options, "enable_progress_bar": False}
    train(preferences.read(pairs), out, reward, training, seed=seed, **quiet)
    return read_json(out / "training.json")


def puzzle(*numbers: int, target: int = 24, id: str = "t", split: str = "test") -> Task:
    """A Game of 24 task of any numbers."""
    return Task(id, "game24", split, instruction(numbers, target), {"numbers": list(numbers), "target": target})


class Fragile(Game24):
    """A simulator that dies of every multiplication."""

    def step(self, action: str) -> Observation:
        if " * " in action:
            raise SimulatorError("the simulator died")
        return super().step(action)

    def examples(self) -> list[tuple[Task, tuple[str, ...]]]:
        return [(puzzle(1, 2, 3, 4), ("1 + 2 = 3", "3 + 3 = 6", "6 + 4 = 10"))]


def cuts(data: bytes, rng: random.Random, n: int) -> list[int]:
    """Where a file of lines may have been cut: `n` ends of lines, and `n` places inside them."""
    ends = [0] + [i + 1 for i, byte in enumerate(data) if byte == 10]
    return rng.sample(ends, n) + [rng.randrange(len(data)) for _ in range(n)]


class ScriptedLM(LanguageModel):
    """Chooses by `weight(prompt, choice)` and writes `text(prompt, seed)`; `calls` keeps what it was asked,
    `written` what it wrote.

    A token is a character here.
    """

    name = "scripted"
    has_prefix_cache = True

    def __init__(
        self,
        weight: Callable[[str, str], float] = lambda prompt, choice: 1.0,
        text: Callable[[str, int], str] = lambda prompt, seed: "",
    ):
        self.weight = weight
        self.text = text
        self.calls: list[tuple[str, list[str], Any]] = []  # (method, prompts, choices or n)
        self.written: list[str] = []
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def generate(
        self,
        prompts: Sequence[str],
        n: int = 1,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        stop: str = "\n",
        seeds: Sequence[int] | None = None,
        schema: Any = None,
    ) -> list[list[Completion]]:
        self.calls.append(("generate", list(prompts), n))
        written = [[self.text(p, (seeds[i] if seeds else 0) + k) for k in range(n)] for i, p in enumerate(prompts)]
        self.written += [text for texts in written for text in texts]
        return [[Completion(text, len(p) + len(text)) for text in texts] for p, texts in zip(prompts, written)]

    def choose(
        self,
        prompts: Sequence[str],
        choices: Sequence[Sequence[str]],
        n: int | None = 1,
        *,
        temperature: float = 1.0,
        seeds: Sequence[int] | None = None,
        decoding: str = "sequence",
    ) -> list[list[Choice]]:
        self.calls.append(("choose", list(prompts), [tuple(options) for options in choices]))
        return [
            self._choose(prompt, options, n, temperature, seeds[i] if seeds else 0)
            for i, (prompt, options) in enumerate(zip(prompts, choices, strict=True))
        ]

    def _choose(
        self, prompt: str, options: Sequence[str], n: int | None, temperature: float, seed: int
    ) -> list[Choice]:
        weights = np.array([self.weight(prompt, option) for option in options], dtype=float)
        hot = np.arange(len(weights)) == weights.argmax()
        p = hot.astype(float) if temperature == 0 else weights ** (1 / temperature)
        p = p / p.sum()
        picks = range(len(p)) if n is None else np.random.default_rng(seed).choice(len(p), n, p=p)
        tokens = len(prompt) + sum(map(len, options))
        with np.errstate(divide="ignore"):
            return [Choice(options[k], int(k), float(np.log(p[k])), tokens) for k in picks]


class ScriptedReward:
    """`score` as a function of one trajectory says; `scored` keeps what was asked, in order."""

    def __init__(self, value: Callable[[Trajectory], float]):
        self.value = value
        self.scored: list[Trajectory] = []

    def reset(self) -> None: ...

    def score(self, instructions: Sequence[str], trajectories: Sequence[Trajectory]) -> np.ndarray:
        assert list(instructions) == [t.task.instruction for t in trajectories]
        self.scored += trajectories
        return np.array([self.value(t) for t in trajectories])
