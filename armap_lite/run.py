"""One run of the pipeline in one environment: its settings, its folder, and each stage by name.

The notebooks call these methods one after the other. A stage whose input is missing makes a small one first and says
so, so that every notebook also runs on its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from armap_lite import collect, envs, evaluate, llms, planners, profiles, synthesize
from armap_lite.agent import Agent
from armap_lite.control import Objective, Weighted
from armap_lite.envs.base import Environment
from armap_lite.llms.base import LanguageModel
from armap_lite.planners.base import PlanResult
from armap_lite.store import JsonlStore, read_jsonl, write_atomic
from armap_lite.trajectory import PreferencePair, Task, Trajectory

FORMAT = 2  # of the stage files: trajectories say what a transcript keeps of them
CONTROLLED = ("best_of_n", "mcts")  # planners whose samples stage 5 chooses among anew
COUNTED = ("seconds.json", "answers.json")  # what planning took, by planner; how a server answered


class Run:
    """`Run("some-world", "fast", "runs/fast", seed=0)`: the models load when they are first used.

    `policy`, `reward`: an LLM and a reward model's backbone instead of the profile's (an asset's name, a Hugging Face
    id or folder, a GGUF file; the policy also a server's URL). `changes`: fields of the profile, e.g. test_tasks=4.
    """

    def __init__(
        self,
        env: str,
        profile: str = "fast",
        run_dir: str | Path | None = None,
        seed: int = 0,
        policy: str | None = None,
        reward: str | None = None,
        **changes: Any,
    ):
        envs.named(env)
        settings = dataclasses.replace(profiles.get(profile, env), **changes)
        if reward:
            settings = dataclasses.replace(settings, reward=dataclasses.replace(settings.reward, backbone=reward))
        options = {**settings.env_options, **user_options(env)}
        planners.check(settings.planners)
        self.settings = dataclasses.replace(settings, policy=policy or settings.policy, env_options=options)
        self.name, self.profile, self.seed = env, profile, seed
        self.root = Path(run_dir or f"runs/{profile}")
        self.dir = self.root / env
        self.share = slice(None)  # of each stage's items, those done here: see scale.py
        self._claim()

    def _claim(self) -> None:
        """A folder belongs to one configuration: mixing two in it would make results that no one can repeat."""
        mine = {"format": FORMAT, "env": self.name, "profile": self.profile, "seed": self.seed}
        mine["version"] = getattr(envs.named(self.name)[0], "version", None)  # None: it is that of a package
        mine |= {field.name: getattr(self.settings, field.name) for field in dataclasses.fields(self.settings)}
        mine = {name: repr(value) for name, value in mine.items()}
        file = self.path("run.json")
        if file.is_file():
            theirs = json.loads(file.read_text())
            odd = [key for key in mine if mine[key] != theirs.get(key)]
            if odd and any(other != file for other in self.dir.iterdir()):
                was = "with " + ", ".join(f"{key}={theirs.get(key)}" for key in odd)
                if "format" in odd:
                    was = "by another version of armap-lite, whose files cannot be continued"
                way = "take another folder (RUN_DIR in a notebook, OUT with make), or delete this one"
                raise ValueError(f"{self.dir} was made {was}; {way}")
        self.dir.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(mine, indent=1))

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: not what it has to load for itself."""
        return {k: v for k, v in vars(self).items() if not isinstance(getattr(Run, k, None), functools.cached_property)}

    def save_figure(self, figure: Figure, name: str) -> Figure:
        """Keep `figure` and its alternative text under figures/, for the report; returns it for display."""
        self.path("figures").mkdir(exist_ok=True)
        figure.savefig(self.path(f"figures/{name}.png"), dpi=110, bbox_inches="tight")
        write_atomic(self.path(f"figures/{name}.txt"), str(figure.get_label()))
        return figure

    def path(self, name: str) -> Path:
        return self.dir / name

    @functools.cached_property
    def env(self) -> Environment:
        return envs.make(self.name, **self.settings.env_options)

    @functools.cached_property
    def lm(self) -> LanguageModel:
        return llms.load(self.settings.policy)

    @functools.cached_property
    def data_lm(self) -> LanguageModel:
        return llms.load(self.settings.data_llm) if self.settings.data_llm else self.lm

    @functools.cached_property
    def agent(self) -> Agent:
        return Agent(self.lm, self.env)

    @functools.cached_property
    def reward(self) -> Any:
        from armap_lite import reward

        return reward.load(self.path("reward_model"))

    @functools.cached_property
    def train_tasks(self) -> list[Task]:
        return self.env.draw(self.settings.collect_tasks, self.seed)

    @functools.cached_property
    def test_tasks(self) -> list[Task]:
        return evenly(self.env.tasks("test"), self.settings.test_tasks)

    # The stages.

    async def collect(self) -> dict[str, int]:
        """Stage 1 into trajectories.jsonl."""
        s, tasks = self.settings, self.train_tasks[self.share]
        with tqdm(total=len(tasks), desc="collect") as bar:
            counts = await collect.collect(
                self.env,
                self.agent,
                tasks,
                self.path("trajectories.jsonl"),
                samples=s.samples,
                temperature=s.collect_temperature,
                proposals=s.proposals,
                seed=self.seed,
                progress=bar.update,
            )
        self._keep_misses()
        return counts

    async def trajectories(self) -> list[Trajectory]:
        """Stage 1's output; made now where it is missing."""
        if self._missing("trajectories.jsonl", "trajectories"):
            await self.collect()
        return collect.load(self.path("trajectories.jsonl"))

    async def synthesize(self) -> dict[str, int]:
        """Stage 2 into pairs.jsonl and pairs.parquet."""
        trajectories, s = await self.trajectories(), self.settings
        with tqdm(total=len(trajectories[self.share]), desc="synthesize") as bar:
            counts = await synthesize.synthesize(
                self.env,
                self.data_lm,
                trajectories,
                self.path("pairs.jsonl"),
                negatives=s.negatives,
                texts=s.texts,
                mirror=s.mirror,
                seed=self.seed,
                share=self.share,
                look_back=s.look_back(self.env),
                progress=bar.update,
            )
        synthesize.to_parquet(synthesize.load(self.path("pairs.jsonl")), self.path("pairs.parquet"))
        return counts

    async def pairs(self) -> list[PreferencePair]:
        """Stage 2's output; made now where it is missing."""
        if self._missing("pairs.parquet", "preference pairs"):
            await self.synthesize()
        return synthesize.load(self.path("pairs.jsonl"))

    async def test_pairs(self) -> list[PreferencePair]:
        """Pairs of development tasks, which neither training nor its early stopping has seen."""
        s, file, rough = self.settings, self.path("dev_pairs.jsonl"), self.path("dev_trajectories.jsonl")
        tasks = evenly(self.env.tasks("dev"), s.dev_tasks)
        size: dict[str, Any] = {"samples": s.samples, "temperature": s.collect_temperature, "proposals": 0}
        await collect.collect(self.env, self.agent, tasks, rough, seed=self.seed, **size)
        way: dict[str, Any] = {"negatives": 1, "texts": s.texts, "look_back": s.look_back(self.env)}
        await synthesize.synthesize(self.env, self.data_lm, collect.load(rough), file, seed=self.seed, **way)
        return synthesize.load(file)

    async def margins(self) -> dict[str, Any]:
        """Rewards of the pairs of `test_pairs`, by the trained model and by the same network before training."""
        file = self.path("margins.json")
        if not file.is_file():
            from armap_lite.reward import untrained

            pairs = await self.test_pairs()
            texts = [p.instruction for p in pairs]
            sides: dict[str, Any] = {"task_ids": [p.task_id for p in pairs]}
            for name, model in (("", self.reward), ("untrained_", untrained(self.settings.reward, self.seed))):
                sides[f"{name}chosen"] = model.score(texts, [p.chosen for p in pairs]).tolist()
                sides[f"{name}rejected"] = model.score(texts, [p.rejected for p in pairs]).tolist()
            write_atomic(file, json.dumps(sides))
        return json.loads(file.read_text())

    async def train(self, **trainer_options: Any) -> dict[str, float]:
        """Stage 3 into reward_model/; what is finished is not done again."""
        from armap_lite.reward.training import train

        file = self.path("training.json")
        if not file.is_file():
            pairs = await self.pairs()
            metrics = train(
                pairs,
                self.path("reward_model"),
                self.settings.reward,
                self.settings.training,
                seed=self.seed,
                **trainer_options,
            )
            write_atomic(file, json.dumps(metrics, indent=1))
        return json.loads(file.read_text())

    async def plan(self, only: Sequence[str] | None = None) -> list[PlanResult]:
        """Stage 4 into plans.jsonl."""
        if self._missing("training.json", "reward model"):
            await self.train(enable_progress_bar=False)
        chosen = {name: o for name, o in self.settings.planners.items() if only is None or name in only}
        tasks = self.test_tasks[self.share]
        self.add("seconds.json", dict.fromkeys(chosen, 0.0))
        with tqdm(total=len(tasks), desc="plan") as bar:
            await planners.plan(
                self.env,
                self.agent,
                self.reward,
                tasks,
                self.path("plans.jsonl"),
                chosen,
                seed=self.seed,
                group=self.settings.group,
                progress=bar.update,
                timed=functools.partial(self.add, "seconds.json"),
            )
        self._keep_misses()
        return planners.load(self.path("plans.jsonl"))

    async def plans(self) -> list[PlanResult]:
        """Stage 4's output; made now where it is missing."""
        if self._missing("plans.jsonl", "plans"):
            await self.plan()
        return planners.load(self.path("plans.jsonl"))

    async def control(self) -> list[dict[str, Any]]:
        """Stage 5 into control.jsonl: the answers of Best-of-N and MCTS under each weight of each of the extra terms.

        The samples and their learned rewards are those of stage 4: a customised reward needs neither training
        nor a new rollout.
        """
        plans = {p.id: p for p in await self.plans() if p.planner in CONTROLLED}
        terms = self.env.terms
        weights = {label: self.settings.control_weights.get(label, profiles.WEIGHTS) for label in terms}
        cases = [(planner, label, weight) for planner in CONTROLLED for label in terms for weight in weights[label]]
        with JsonlStore(self.path("control.jsonl")) as store:
            for planner, label, weight in cases:
                term = terms[label]
                objective = Objective() - weight * Weighted(term)
                for plan in (p for p in plans.values() if p.planner == planner):
                    what = {"planner": planner, "term": label, "weight": weight}
                    key = "/".join(map(str, (*what.values(), plan.task_id)))
                    if key not in store.ids:
                        chosen = max(plan.samples, key=lambda s: objective(s.trajectory, s.reward or 0.0))
                        costs = {"cost": term(chosen.trajectory), "steps": len(chosen.trajectory.steps)}
                        line = {"id": key, **what, "reward": chosen.reward, **costs}
                        store.append(line | {"trajectory": chosen.trajectory.to_json()})
        return list(read_jsonl(self.path("control.jsonl")))

    async def evaluate(self) -> dict[str, Any]:
        """The last stage: the only one that asks the judge. Rows of `results.json` for this environment."""
        plans = await self.plans()
        with contextlib.closing(envs.make_judge(self.name, **self.settings.env_options)) as judge:
            golds = evaluate.score_plans(plans, judge)
        margins = await self.margins()
        gaps = [np.subtract(margins[f"{n}chosen"], margins[f"{n}rejected"]) for n in ("", "untrained_")]
        trained = await self.train()
        scored = [s.trajectory for p in plans for s in p.samples if s.reward is not None]
        scored = list({(t.task.id, t.actions): t for t in scored}.values())
        cut = [self.reward.encode(t.task.instruction, t)[1] for t in scored]
        shortened = {
            "shortened": trained["shortened"] / (2 * (trained["train_pairs"] + trained["val_pairs"])),
            "shortened_planned": sum(cut) / max(1, len(cut)),
        }
        learned, blank = (evaluate.pair_metrics(gap, margins["task_ids"]) for gap in gaps)
        n, whole = len(self.test_tasks), len(self.env.tasks("test"))
        rows = evaluate.rows(
            plans,
            golds,
            env=self.name,
            env_version=self.env.version,
            split=self._split() + (f", {n} of {whole}" if n < whole else ""),
            metric=self.env.metric,
            policy=self.settings.policy,
            reward_model=self.settings.reward.backbone,
            profile=self.profile,
            seed=self.seed,
            seconds=json.loads(self.path("seconds.json").read_text()),
            device=str(next(self.reward.network.parameters()).device),
        )
        known = {
            (plan.id, sample.trajectory.actions): gold
            for plan in plans
            for sample, gold in zip(plan.samples, golds[plan.id])
        }
        points: dict[tuple, list[dict[str, Any]]] = {}
        for line in await self.control():
            answer = Trajectory.from_json(line["trajectory"])
            line["score"] = known[f"{line['planner']}/{answer.task.id}", answer.actions]
            points.setdefault((line["planner"], line["term"], line["weight"]), []).append(line)
        control, family = [], evaluate.families(plans)
        for (planner, label, weight), lines in points.items():
            answers = [Trajectory.from_json(line["trajectory"]) for line in lines]
            strata = [family[answer.task.id] for answer in answers] if family else None
            mean, low, high = evaluate.bootstrap_mean([line["score"] for line in lines], strata=strata)
            point = {"env": self.name, "planner": planner, "term": label, "weight": weight, "n": len(lines)}
            means: dict[str, Any] = {key: float(np.mean([line[key] for line in lines])) for key in ("cost", "steps")}
            means["terms"] = {name: float(np.mean([*map(term, answers)])) for name, term in self.env.terms.items()}
            control.append(point | {"score": mean, "ci_low": low, "ci_high": high} | means)
        result = {
            "rows": rows,
            "reward_model": [{"env": self.name, **learned, "baseline": blank["pair_accuracy"], **shortened}],
            "control": control,
        }
        write_atomic(self.path("evaluation.json"), json.dumps({**result, "golds": golds}))
        return result

    # Small things the stages share.

    def _split(self) -> str:
        """The name of the test split; with a user's own files it is another one, and says so."""
        own = [f"{name} {Path(p).name}" for name, p in self.settings.env_options.items() if name in ("folder", "index")]
        return ", ".join([self.settings.split, *own])

    def add(self, name: str, counts: Mapping[str, float]) -> None:
        """Add `counts` to those of `name`, one of `COUNTED`, over all the calls a stage took."""
        if not counts:
            return
        file = self.path(name)
        before = json.loads(file.read_text()) if file.is_file() else {}
        write_atomic(file, json.dumps(before | {key: round(before.get(key, 0) + n, 2) for key, n in counts.items()}))

    def _keep_misses(self) -> None:
        """A server's model writes what it likes; how often that was no admissible action is kept for the report."""
        counts = {name: getattr(self.lm, name, 0) for name in ("parsed", "misses", "fallbacks")}
        if not any(counts.values()):
            return
        self.add("answers.json", counts)
        print(f"{self.lm.name}: {misses(counts)}")
        for name in counts:
            setattr(self.lm, name, 0)  # counted

    def _missing(self, name: str, what: str) -> bool:
        if self.path(name).exists():
            return False
        print(
            f"No {what} in {self.dir} yet: making them now, in the size of profile {self.profile!r}.", file=sys.stderr
        )
        return True


def misses(counts: Mapping[str, int]) -> str:
    """What answers.json counts, in words: answers of a server that is not held to the admissible actions."""
    read, missed, drawn = (counts[name] for name in ("parsed", "misses", "fallbacks"))
    return f"{read} actions read out of free text, {missed} answers not admissible, {drawn} actions drawn instead"


def user_options(env: str) -> dict[str, Any]:
    """Options for environment `env` from ARMAP_LITE_ENV_OPTIONS, JSON: {"NAME": {"folder": "/data/files"}}.

    A variable, so that it reaches the kernels of the notebooks too; they run elsewhere, so paths have to be absolute.
    """
    told = os.environ.get("ARMAP_LITE_ENV_OPTIONS", "{}")
    try:
        options = json.loads(told)
        mine = options.get(env, {})
        if unknown := options.keys() - envs.ENVIRONMENTS.keys():
            raise ValueError(f"{sorted(unknown)[0]!r} is no environment")
        for name in {"folder", "index"} & mine.keys():
            if not Path(mine[name]).is_absolute():
                raise ValueError(f"{mine[name]!r} is no absolute path")
    except (ValueError, AttributeError, TypeError) as error:
        like = '{"NAME": {"OPTION": "VALUE"}}'
        raise ValueError(f"ARMAP_LITE_ENV_OPTIONS={told!r}: {error}; expected JSON like {like}") from error
    return mine


def evenly(tasks: Sequence[Task], n: int | None) -> list[Task]:
    """`n` of `tasks` at even distances (all of them for None): an honest small sample of an ordered list."""
    if n is None or n >= len(tasks):
        return list(tasks)
    return [tasks[i * len(tasks) // n] for i in range(n)]
