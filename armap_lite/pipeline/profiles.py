"""Every size and hyper-parameter: `PROFILES`, and what a world changes in them, `WORLD_CHANGES`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from armap_lite.envs.base import Environment
from armap_lite.envs.hindsight import LLMHindsight
from armap_lite.envs.scienceworld.data import MAX_STEPS
from armap_lite.planners.mcts import PAPER as PAPER_MCTS
from armap_lite.reward.config import RewardConfig, TrainingConfig

DEFAULT_CONTROL_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Profile:
    """One size of the whole pipeline. Raises ValueError for a size or option that is not possible."""

    env_options: Mapping[str, Any] = field(default_factory=dict)  # of `envs.make` and `envs.make_judge`
    split: str = "test"  # the name of the planned tasks in result rows, if they are a part of the split
    policy: str = "smollm2-135m-instruct"  # the LLM that acts: see `llms.parse_spec`
    data_llm: str | None = None  # the LLM that writes instructions; None: the policy
    engine: Mapping[str, Any] = field(default_factory=dict)
    # How models on this machine compute, e.g. {"capacity": 65536, "pack": 4096}: tokens in the cache of keys and
    # values, and new tokens in a forward pass; by default what fits the device. Results do not depend on it.
    collect_tasks: int = 16  # training tasks on which trajectories are collected
    samples: int = 6  # trajectories per task
    collect_temperature: float = 1.5  # above 1, so that the trajectories differ
    num_proposals: int = 2  # instructions that the LLM may propose for a task before the task's own is used
    num_negatives: int = 2
    # Negatives per trajectory that are made as in the paper: one action changed, and the rest executed again.
    num_attempt_negatives: int = 0  # negatives per trajectory that are other attempts of the agent at the same task
    num_graded: int = 0
    # Pairs per trajectory with an attempt that did less of what the task itself asks for, as the world's code counts
    # (hindsight "code" only).
    hindsight: str = "code"
    # Who reads trajectories: "code", and the data LLM only words what code read, which suits a small one; or "llm",
    # which reads, refines and changes them as in the paper. In a world without such code it is always "llm".
    hindsight_chars: int = 12_000
    # Characters of a trajectory shown to "llm", about 4,000 tokens; a longer one loses its middle.
    num_drafts: int = 1
    # Instructions that the data LLM may draft per trajectory before a plain sentence is used ("code" only).
    swap_roles: bool = True  # use each pair a second time with the roles exchanged (see synthesize.py)
    reward: RewardConfig = RewardConfig()
    training: TrainingConfig = TrainingConfig()
    reference: bool = False
    # Plan with the reward model that the kit ships for the world, where there is one: it was trained on more data than
    # this profile collects. The run still trains its own, and shows both.
    dev_tasks: int = 8  # development tasks whose pairs measure the reward model
    test_tasks: int | None = 20  # planned test tasks, evenly spaced over the split; None: all
    planners: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # Planner name -> its options, in the order in which they run and are shown.
    control_weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    # Control term -> its weights in stage 5 (default: DEFAULT_CONTROL_WEIGHTS).
    group: int = 25  # tasks planned concurrently; after an interruption, at most so many are planned again

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.engine) - {"capacity", "pack"}):
            raise ValueError(f"engine has no option {unknown[0]!r}; it has capacity, pack")
        sizes = dict.fromkeys(("collect_tasks", "samples", "dev_tasks", "test_tasks", "group"), 1)
        may_be_0 = ("num_negatives", "num_attempt_negatives", "num_graded", "num_proposals", "num_drafts")
        for name, least in (sizes | dict.fromkeys(may_be_0, 0)).items():
            value = getattr(self, name)
            if (name, value) != ("test_tasks", None) and (not isinstance(value, int) or value < least):
                raise ValueError(f"{name}={value!r}: expected a whole number, at least {least}")
        if not self.num_negatives + self.num_attempt_negatives:
            said = "num_negatives=0 and num_attempt_negatives=0"
            raise ValueError(f"{said}: expected at least one negative per trajectory")
        if self.hindsight not in ("code", "llm"):
            raise ValueError(f"hindsight={self.hindsight!r}: expected 'code' or 'llm'")

    def look_back(self, env: Environment) -> str | LLMHindsight:
        """Who looks back at trajectories of `env`, as `synthesize` takes it."""
        if self.hindsight == "code" and env.hindsight is not None:
            return "code"
        return LLMHindsight(env.look_back_examples, max_chars=self.hindsight_chars)


def _planners(
    n: int, trials: int, temperature: float, diverse: float, mcts: dict[str, Any], threshold: float = 0.0
) -> dict[str, dict[str, Any]]:
    """`n` samples of Best-of-N, `trials` of Reflexion until a reward above `threshold`. `temperature` of a single
    attempt; `diverse`: the one of planners that select among many attempts, which gain from variety.
    """
    return {
        "sampling": {"temperature": temperature},
        "greedy": {},
        "best_of_n": {"n": n, "temperature": diverse},
        "reflexion": {"trials": trials, "temperature": temperature, "threshold": threshold},
        "mcts": {"temperature": diverse, **mcts},
    }


# MCTS gets as many LLM tokens as Best-of-N spent on the same task, not as many rollouts: what the tree shares is its
# gain. How these settings were chosen, on development tasks: tests/bench/README.md.
_BUDGET = {"rollouts": 1000, "llm_tokens": {"spent_by": "best_of_n"}}
_MCTS = {**_BUDGET, "c": 0.2, "expand_terminal_siblings": True}
# In states with many long actions the children are the distinct ones of many draws: beside the prompt they cost little.
# On a server each draw costs the whole prompt: there, fewer.
_SAMPLED_MCTS = {**_BUDGET, "c": 1.0, "num_action_samples": 24, "num_uncached_samples": 6, "greedy_rollouts": True}
_BROAD_MCTS = {**_SAMPLED_MCTS, "c": 4.0, "expand_terminal_siblings": True}
_PAPER_SAMPLED_MCTS = {"rollouts": 10, "temperature": 1.5, **PAPER_MCTS, "num_action_samples": 10}

_WHOLE = RewardConfig(num_layers=None, trainable="all", max_tokens=1024)
_VILA = RewardConfig(
    backbone="Efficient-Large-Model/VILA1.5-3b", num_layers=None, trainable="lora:64", max_tokens=4096, vision="own"
)
# On a CPU that computes in bf16, in it: 1.5 times as fast (tests/bench/README.md).
_CPU_TRAINING = TrainingConfig(precision="auto")
_GPU_TRAINING = TrainingConfig(batch_size=64, lr=1e-4, precision="bf16-mixed", num_validations=10)
_PAPER_TRAINING = TrainingConfig(
    lr=1e-5,
    epochs=10,
    batch_size=4,
    accumulate_grad_batches=16,
    schedule="constant",
    gradient_clip_val=0.3,
    precision="bf16-mixed",
    gradient_checkpointing=True,
    patience=10,
    num_validations=10,
)

PROFILES: dict[str, Profile] = {
    # A first look, CI and README's table: 10 to 20 minutes a world on two CPU cores.
    "fast": Profile(training=_CPU_TRAINING, planners=_planners(8, 3, 1.0, 2.0, _MCTS)),
    # Larger measurements: a hundred test tasks and more, an hour or two per seed on two CPU cores.
    "laptop": Profile(
        training=_CPU_TRAINING,
        collect_tasks=40,
        dev_tasks=25,
        num_negatives=4,
        test_tasks=None,
        planners=_planners(16, 3, 1.0, 2.0, _MCTS),
    ),
    # One GPU of 80 GB: more data, a whole backbone in bf16, a larger search. Activations take 20 GB in Game of 24 (128
    # trajectories of up to 128 tokens) and 39 GB in the other worlds (32 of 1,024): see llms/memory.py. With less
    # memory, a step of the optimiser takes more passes with fewer pairs.
    "gpu": Profile(
        collect_tasks=600,
        samples=8,
        num_drafts=2,
        reward=_WHOLE,
        training=_GPU_TRAINING,
        test_tasks=None,
        planners=_planners(64, 10, 1.0, 2.0, _MCTS),
    ),
    # The published constants (arXiv 2502.12130 and its code); name the models by id or URL.
    "paper": Profile(
        policy="meta-llama/Llama-3.1-8B-Instruct",
        data_llm="meta-llama/Meta-Llama-3-70B-Instruct",
        hindsight="llm",
        collect_tasks=1000,
        samples=10,
        num_negatives=1,
        num_drafts=1,
        swap_roles=False,
        reward=_VILA,
        training=_PAPER_TRAINING,
        test_tasks=None,
        planners=_planners(10, 10, 0.5, 0.5, _PAPER_SAMPLED_MCTS),
    ),
}

# A student on two cores: a step of WebShop takes 4 s on one core with 12 layers and 104 tokens, 14 s with 16 and 160.
_SHORT = RewardConfig(num_layers=12, trainable="top:6", max_tokens=192)
# The instruction comes first and the receipt, with its picture, last: most of what lies between can go. A picture
# becomes four tokens, the words of its caption. Of 136 pairs of look-alikes (development goals) 0.53 were ranked right
# with one token, their sum; 0.72 with four; 0.89 with four frozen after the captions; 0.92 with the caption itself. One
# training run each.
_SHORT_WITH_PICTURES = replace(_SHORT, vision="efficientnet-lite0", vision_tokens=4, max_tokens=104)
_LONG_GPU_TRAINING = replace(_GPU_TRAINING, batch_size=16, accumulate_grad_batches=4)  # 64 pairs of 1,024 tokens
_DOLLARS = (0.0, 1.0, 2.0, 4.0, 8.0, 12.0)

# What a world changes: in every profile (EVERY), then in one. Worlds that are not named here take profiles as they are.
EVERY = "every profile"
WORLD_CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "game24": {
        # Episodes are short: 16 attempts, as in `laptop`.
        "fast": {"reference": True, "test_tasks": None, "planners": _planners(16, 2, 1.0, 2.0, _MCTS)},
        "paper": {
            "reward": replace(_VILA, max_tokens=4000),
            # Best-of-100, 100 rollouts, T = 0.7
            "planners": _planners(100, 10, 0.7, 0.7, {"rollouts": 100, **PAPER_MCTS}),
        },
    },
    "scienceworld": {
        EVERY: {
            "collect_temperature": 1.0,
            # Rewards of one task differ by a few units, and an attempt takes 10 to 40 actions.
            "control_weights": {"actions": (0.0, 0.02, 0.05, 0.1, 0.2)},
        },
        "fast": {
            "env_options": {"families": tuple(family for family, steps in MAX_STEPS.items() if steps <= 15)},
            "split": "test, short tasks",
            "reward": _SHORT,
            "training": replace(_CPU_TRAINING, epochs=2, monitor="val_loss"),
            # In these families both kinds of pairs are needed: see tests/bench/README.md.
            "collect_tasks": 24,
            "samples": 6,
            "num_negatives": 1,
            "num_attempt_negatives": 3,
            "reference": True,
            "dev_tasks": 4,
            "test_tasks": 60,
            "planners": _planners(8, 2, 1.0, 1.0, _SAMPLED_MCTS),
        },
        "laptop": {
            "reward": _SHORT,
            "training": replace(_CPU_TRAINING, monitor="val_loss"),
            "collect_tasks": 96,  # four of each family
            "num_negatives": 0,  # over all families other attempts teach more: see tests/bench/README.md
            "num_attempt_negatives": 3,
            "dev_tasks": 20,
            "test_tasks": 106,
            "planners": _planners(6, 3, 1.0, 1.0, _SAMPLED_MCTS),
        },
        "gpu": {"training": _LONG_GPU_TRAINING, "planners": _planners(64, 10, 1.0, 1.0, _SAMPLED_MCTS)},
        "paper": {
            "training": replace(_PAPER_TRAINING, accumulate_grad_batches=4, devices=8),
            "planners": _planners(10, 10, 0.5, 0.5, _PAPER_SAMPLED_MCTS, threshold=7.25),
        },
    },
    "webshop": {
        EVERY: {
            "collect_temperature": 1.0,
            # What 100 dollars more, or one action more of about 4, may weigh.
            "control_weights": {
                "price paid, in 100 $": _DOLLARS,
                "actions": (0.0, 0.25, 0.5, 1.0, 2.0),
                "price and 10 $ an action, in 100 $": _DOLLARS,
            },
        },
        "fast": {
            "reward": _SHORT_WITH_PICTURES,
            # Of 168 and 146 development pairs (two seeds) 0.75 and 0.83 were ranked right after one epoch, with the
            # weights of the best accuracy; 0.84 and 0.88 after two, with the lowest loss; 0.77 and 0.88 after one on 20
            # tasks, which take long.
            "training": replace(_CPU_TRAINING, epochs=2, monitor="val_loss"),
            # Sizes and kind of the pairs: see tests/bench/README.md.
            "collect_tasks": 16,
            "samples": 8,
            "num_negatives": 0,
            "num_attempt_negatives": 4,
            "reference": True,
            "dev_tasks": 6,
            "test_tasks": 60,
            "planners": _planners(8, 2, 1.0, 1.0, _BROAD_MCTS),
        },
        "laptop": {
            "reward": _SHORT_WITH_PICTURES,
            # One epoch is too short.
            "training": replace(_CPU_TRAINING, epochs=2, monitor="val_loss", num_validations=10, patience=5),
            "collect_tasks": 64,
            # With so many pairs all three kinds help: see tests/bench/README.md.
            "num_negatives": 2,
            "num_attempt_negatives": 2,
            "num_graded": 2,
            "dev_tasks": 20,
            "test_tasks": 110,
            "planners": _planners(12, 3, 1.0, 1.0, _BROAD_MCTS),
        },
        "gpu": {
            "training": _LONG_GPU_TRAINING,
            "reward": replace(_WHOLE, vision="efficientnet-lite0", vision_tokens=4),
            "planners": _planners(64, 10, 1.0, 1.0, _BROAD_MCTS),
        },
        "paper": {
            "reward": replace(_VILA, max_tokens=8192),
            "training": replace(_PAPER_TRAINING, lr=2e-5, epochs=3, accumulate_grad_batches=1),
            "planners": _planners(10, 10, 0.5, 0.5, _PAPER_SAMPLED_MCTS),
        },
    },
}


def get(profile: str, env: str) -> Profile:
    """The settings of `profile` for environment `env`. Raises ValueError for an unknown profile."""
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r} is not known; there is {', '.join(PROFILES)}")
    changes = WORLD_CHANGES.get(env, {})
    return replace(PROFILES[profile], **(changes.get(EVERY, {}) | changes.get(profile, {})))


def one_minute(max_steps: int) -> dict[str, Any]:
    """What notebook 00 changes in a profile, so that all stages of a world take a minute or two.

    Episodes of few steps are short: more of them in the same time. Negatives are changed actions only, and no reward
    model but the run's own guides the planner.
    """
    tasks, negatives, samples, attempts = (8, 3, 4, 16) if max_steps < 5 else (6, 2, 3, 6)
    return {
        "collect_tasks": tasks,
        "samples": samples,
        "num_proposals": 0,
        "num_negatives": negatives,
        "num_attempt_negatives": 0,
        "training": replace(_CPU_TRAINING, num_validations=1),
        "reference": False,
        "planners": {"best_of_n": {"n": attempts, "temperature": 1.0}},
    }
