"""One run of the pipeline in one environment: its settings, its folder, and each stage by name.

The notebooks call these methods one after the other. A stage whose input is missing makes a small one first and says
so, so that every notebook also runs on its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from armap_lite import collect, envs, evaluate, llms, planners, synthesize
from armap_lite.agent import Agent
from armap_lite.control import Objective, Weighted
from armap_lite.envs.base import Environment
from armap_lite.llms import answers, spec
from armap_lite.llms.base import LanguageModel
from armap_lite.pipeline import profiles
from armap_lite.planners.base import PlanResult
from armap_lite.storage.store import JsonlStore, read_jsonl, write_atomic
from armap_lite.trajectory import PreferencePair, Task, Trajectory

FORMAT = 2  # of the stage files: trajectories say what a transcript keeps of them
CONTROLLED = ("best_of_n", "mcts")  # planners whose samples stage 5 chooses among anew
COUNTER_FILES = ("seconds.json", "answers.json")  # what planning took, by planner; how a server answered


class Run:
    """`Run("some-world", "fast", "runs/fast", seed=0)`: the models load when they are first used.

    `policy`, `data_llm`, `reward`: the LLM that acts, the one that writes instructions, and a reward model's backbone,
    instead of the profile's. Each is an asset's name, a Hugging Face id or folder or a GGUF file, an LLM also a
    server's URL, and may be followed by options: "smollm2-135m-instruct dtype=float32" (see `llms.parse_spec`).
    `changes`: fields of the profile, e.g. test_tasks=4.
    """

    def __init__(
        self,
        env: str,
        profile: str = "fast",
        run_dir: str | Path | None = None,
        seed: int = 0,
        policy: str | None = None,
        reward: str | None = None,
        data_llm: str | None = None,
        **changes: Any,
    ):
        envs.lookup(env)
        settings = dataclasses.replace(profiles.get(profile, env), **changes)
        self.reward_options: dict[str, Any] = {}  # how the reward model is loaded
        if reward is not None:
            reward, self.reward_options = spec.check(reward, reward=True)
            settings = dataclasses.replace(settings, reward=dataclasses.replace(settings.reward, backbone=reward))
        options = {**settings.env_options, **envs.user_options(env)}
        envs.check_options(env, options)
        planners.check(settings.planners)
        policy = settings.policy if policy is None else policy
        data_llm = settings.data_llm if data_llm is None else data_llm
        _ = [spec.check(model) for model in (policy, data_llm) if model is not None]
        self.settings = dataclasses.replace(settings, policy=policy, data_llm=data_llm, env_options=options)
        self.name, self.profile, self.seed = env, profile, seed
        self.root = Path(run_dir or f"runs/{profile}")
        self.dir = self.root / env
        self.item_slice = slice(None)  # of each stage's items, those done here: see scale.py
        self._claim()

    def _claim(self) -> None:
        """A folder belongs to one configuration: mixing two in it would make results that no one can repeat."""
        mine: dict[str, Any] = {"format": FORMAT, "env": self.name, "profile": self.profile, "seed": self.seed}
        mine["version"] = getattr(envs.lookup(self.name)[0], "version", None)  # None: it is that of a package
        named = [field.name for field in dataclasses.fields(self.settings) if field.name != "engine"]
        mine |= {name: getattr(self.settings, name) for name in named}
        mine["reward_options"] = " ".join(spec.meaning(self.reward_options))
        mine = spec.comparable({name: repr(value) for name, value in mine.items()})
        file = self.path("run.json")
        if file.is_file():
            theirs = spec.comparable({"reward_options": "''", **json.loads(file.read_text(encoding="utf-8"))})
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
        return self._load(self.settings.policy)

    @functools.cached_property
    def data_lm(self) -> LanguageModel:
        other = self.settings.data_llm
        return self._load(other) if other and other != self.settings.policy else self.lm

    def _load(self, model: str) -> LanguageModel:
        return llms.load(model, **({} if "://" in model else self.settings.engine))

    @functools.cached_property
    def agent(self) -> Agent:
        return Agent(self.lm, self.env)

    @functools.cached_property
    def reward(self) -> Any:
        from armap_lite import reward

        folder, backbone = self.path("reward_model"), self.settings.reward.backbone
        where = folder if folder.exists() or not reward.is_finished(backbone) else backbone
        return reward.load(where, **{**self.settings.engine, **self.reward_options})

    @functools.cached_property
    def train_tasks(self) -> list[Task]:
        return self.env.draw(self.settings.collect_tasks, self.seed)

    @functools.cached_property
    def test_tasks(self) -> list[Task]:
        return evenly_spaced(self.env.tasks("test"), self.settings.test_tasks)

    # The stages.

    async def collect(self) -> dict[str, int]:
        """Stage 1 into trajectories.jsonl."""
        s, tasks = self.settings, self.train_tasks[self.item_slice]
        with tqdm(total=len(tasks), desc="collect") as bar, self._record_invalid_actions():
            counts = await collect.collect(
                self.env,
                self.agent,
                tasks,
                self.path("trajectories.jsonl"),
                samples=s.samples,
                temperature=s.collect_temperature,
                num_proposals=s.num_proposals,
                seed=self.seed,
                progress=bar.update,
            )
        return counts

    async def trajectories(self) -> list[Trajectory]:
        """Stage 1's output; made or finished now where it is not complete."""
        file = self.path("trajectories.jsonl")
        if not collect.complete(file, self.train_tasks, self.settings.samples):
            self._say(file, "trajectories")
            await self.collect()
        return collect.load(file)

    async def synthesize(self) -> dict[str, int]:
        """Stage 2 into pairs.jsonl and pairs.parquet."""
        trajectories, s = await self.trajectories(), self.settings
        with tqdm(total=len(trajectories[self.item_slice]), desc="synthesize") as bar, self._record_invalid_actions():
            counts = await synthesize.synthesize(
                self.env,
                self.data_lm,
                trajectories,
                self.path("pairs.jsonl"),
                num_negatives=s.num_negatives,
                num_drafts=s.num_drafts,
                swap_roles=s.swap_roles,
                seed=self.seed,
                item_slice=self.item_slice,
                look_back=s.look_back(self.env),
                progress=bar.update,
            )
        synthesize.to_parquet(synthesize.load(self.path("pairs.jsonl")), self.path("pairs.parquet"))
        return counts

    async def pairs(self) -> list[PreferencePair]:
        """Stage 2's output; made or finished now where it is not complete."""
        file = self.path("pairs.jsonl")
        if not synthesize.complete(file, await self.trajectories()):
            self._say(file, "preference pairs")
            await self.synthesize()
        pairs = synthesize.load(file)
        synthesize.to_parquet(pairs, self.path("pairs.parquet"))  # that of an earlier pairs.jsonl is replaced
        return pairs

    async def test_pairs(self) -> list[PreferencePair]:
        """Pairs of development tasks, which neither training nor its early stopping has seen."""
        s, file, rough = self.settings, self.path("dev_pairs.jsonl"), self.path("dev_trajectories.jsonl")
        tasks = evenly_spaced(self.env.tasks("dev"), s.dev_tasks)
        size: dict[str, Any] = {"samples": s.samples, "temperature": s.collect_temperature, "num_proposals": 0}
        way: dict[str, Any] = {"num_negatives": 1, "num_drafts": s.num_drafts, "look_back": s.look_back(self.env)}
        with self._record_invalid_actions():
            await collect.collect(self.env, self.agent, tasks, rough, seed=self.seed, **size)
            await synthesize.synthesize(self.env, self.data_lm, collect.load(rough), file, seed=self.seed, **way)
        return synthesize.load(file)

    async def margins(self) -> dict[str, Any]:
        """Rewards of the pairs of `test_pairs`, by the trained model and by the same network before training.

        Of a finished model there is no network before training.
        """
        file = self.path("margins.json")
        if not file.is_file():
            from armap_lite.reward import is_finished, untrained

            models = {"": self.reward}
            if not is_finished(self.settings.reward.backbone):
                models["untrained_"] = untrained(self.settings.reward, self.seed)
            pairs = await self.test_pairs()
            texts = [p.instruction for p in pairs]
            sides: dict[str, Any] = {"task_ids": [p.task_id for p in pairs]}
            for name, model in models.items():
                sides[f"{name}chosen"] = model.score(texts, [p.chosen for p in pairs]).tolist()
                sides[f"{name}rejected"] = model.score(texts, [p.rejected for p in pairs]).tolist()
            write_atomic(file, json.dumps(sides))
        return json.loads(file.read_text(encoding="utf-8"))

    async def train(self, **trainer_options: Any) -> dict[str, float]:
        """Stage 3 into reward_model/ and training.json, in a process of its own; what is finished is not done again.

        Other pairs than those that training.json names train anew; a finished reward model is not trained.
        `trainer_options`: see `reward.process.train`.
        """
        from armap_lite.pipeline import training_process
        from armap_lite.reward import is_finished

        file, made, s = self.path("training.json"), self.path("pairs.jsonl"), self.settings
        if file.is_file() and not made.is_file():  # a worker of scale.py is sent the model alone
            return training_process.metrics(file)
        if is_finished(s.reward.backbone):
            if not file.is_file():
                print(f"{s.reward.backbone} is a finished reward model: nothing is trained.", file=sys.stderr)
                write_atomic(file, json.dumps({"trained": False, "train_pairs": 0, "val_pairs": 0, "shortened": 0}))
            return training_process.metrics(file)
        known = synthesize.load(made) if made.is_file() else []
        if not training_process.is_current(file, known, s.reward, s.training, self.seed):
            await self.pairs()
            training_process.stage(self.dir, s.reward, s.training, seed=self.seed, **trainer_options)
            vars(self).pop("reward", None)
        return training_process.metrics(file)

    async def plan(self, only: Sequence[str] | None = None) -> list[PlanResult]:
        """Stage 4 into plans.jsonl."""
        if not self.path("training.json").exists():
            self._say(self.path("training.json"), "reward model")
        await self.train(enable_progress_bar=False)
        chosen = {name: o for name, o in self.settings.planners.items() if only is None or name in only}
        tasks = self.test_tasks[self.item_slice]
        self.add_counts("seconds.json", dict.fromkeys(chosen, 0.0))
        with tqdm(total=len(tasks), desc="plan") as bar, self._record_invalid_actions():
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
                timed=functools.partial(self.add_counts, "seconds.json"),
            )
        return planners.load(self.path("plans.jsonl"))

    async def plans(self) -> list[PlanResult]:
        """Stage 4's output; made or finished now where it is not complete."""
        file = self.path("plans.jsonl")
        if not planners.complete(file, self.test_tasks, self.settings.planners):
            self._say(file, "plans")
            await self.plan()
        return planners.load(file)

    async def control(self) -> list[dict[str, Any]]:
        """Stage 5 into control.jsonl: the answers of Best-of-N and MCTS under each weight of each of the extra terms.

        The samples and their learned rewards are those of stage 4: a customised reward needs neither training
        nor a new rollout.
        """
        plans = {p.id: p for p in await self.plans() if p.planner in CONTROLLED}
        terms = self.env.terms
        weights = {label: self.settings.control_weights.get(label, profiles.DEFAULT_CONTROL_WEIGHTS) for label in terms}
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
        trained = await self.train()
        plans = await self.plans()
        with contextlib.closing(envs.make_judge(self.name, **self.settings.env_options)) as judge:
            golds = evaluate.score_plans(plans, judge)
        margins = await self.margins()
        names = [n for n in ("", "untrained_") if f"{n}chosen" in margins]  # a finished model was never untrained here
        gaps = [np.subtract(margins[f"{n}chosen"], margins[f"{n}rejected"]) for n in names]
        scored = [s.trajectory for p in plans for s in p.samples if s.reward is not None]
        scored = list({(t.task.id, t.actions): t for t in scored}.values())
        cut = [self.reward.encode(t.task.instruction, t)[1] for t in scored]
        shortened = {
            "shortened": trained["shortened"] / max(1, 2 * (trained["train_pairs"] + trained["val_pairs"])),
            "shortened_planned": sum(cut) / max(1, len(cut)),
        }
        learned, *blank = (evaluate.pair_metrics(gap, margins["task_ids"]) for gap in gaps)
        baseline = blank[0]["pair_accuracy"] if blank else None
        n, whole = len(self.test_tasks), len(self.env.tasks("test"))
        rows = evaluate.rows(
            plans,
            golds,
            env=self.name,
            env_version=self.env.version,
            split=self._split() + (f", {n} of {whole}" if n < whole else ""),
            metric=self.env.metric,
            policy=spec.label(self.settings.policy),
            reward_model=" ".join([self.settings.reward.backbone, *spec.meaning(self.reward_options)]),
            profile=self.profile,
            seed=self.seed,
            seconds=json.loads(self.path("seconds.json").read_text(encoding="utf-8")),
            device=str(next(self.reward.network.parameters()).device),
        )
        control = evaluate.control_points(await self.control(), plans, golds, self.name, self.env.terms)
        result = {
            "rows": rows,
            "reward_model": [{"env": self.name, **learned, "baseline": baseline, **shortened}],
            "control": control,
        }
        write_atomic(self.path("evaluation.json"), json.dumps({**result, "golds": golds}))
        return result

    # Small things the stages share.

    def _split(self) -> str:
        """The name of the test split; with a user's own files it is another one, and says so."""
        own = [f"{name} {Path(p).name}" for name, p in self.settings.env_options.items() if name in envs.PATH_OPTIONS]
        return ", ".join([self.settings.split, *own])

    def add_counts(self, name: str, counts: Mapping[str, float]) -> None:
        """Add `counts` to those of `name`, one of `COUNTER_FILES`, over all the calls a stage took."""
        if not counts:
            return
        file = self.path(name)
        before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        write_atomic(file, json.dumps(before | {key: round(before.get(key, 0) + n, 2) for key, n in counts.items()}))

    @contextlib.contextmanager
    def _record_invalid_actions(self) -> Iterator[None]:
        """A server's model writes what it likes; how often that was no admissible action is kept for the report.

        Raises UnreadableAnswersError before and after where, over all stages, it was too often: see `answers.check`.
        """
        self.check_invalid_actions()
        try:
            yield
        finally:
            for lm in filter(None, map(vars(self).get, ("lm", "data_lm"))):
                if counts := answers.taken(lm):
                    self.add_counts("answers.json", counts)
                    print(f"{lm.name}: {answers.invalid_action_summary(counts)}")
        self.check_invalid_actions()

    def check_invalid_actions(self) -> None:
        file = self.path("answers.json")
        if file.is_file() and self.item_slice == slice(None):  # the parts of a stage are judged together
            answers.check(json.loads(file.read_text(encoding="utf-8")), str(self.dir))

    def _say(self, file: Path, what: str) -> None:
        state, way = ("Incomplete", "finishing") if file.exists() else ("No", "making")
        print(f"{state} {what} in {self.dir}: {way} them now, as profile {self.profile!r} says.", file=sys.stderr)


def evenly_spaced(tasks: Sequence[Task], n: int | None) -> list[Task]:
    """`n` of `tasks` at even distances (all of them for None): an honest small sample of an ordered list."""
    if n is None or n >= len(tasks):
        return list(tasks)
    return [tasks[i * len(tasks) // n] for i in range(n)]
