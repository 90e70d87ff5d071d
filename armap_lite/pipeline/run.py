"""One run of the pipeline in one environment: its settings, its models, and each stage by name.

The notebooks call the stages one after the other. A stage first completes the stages it depends on and says so, so that
every notebook also runs on its own.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from armap_lite import collect, control, envs, llms, planners, reward, synthesize
from armap_lite.agent import Agent
from armap_lite.envs.base import Environment
from armap_lite.exchange import preferences
from armap_lite.llms import answers, spec
from armap_lite.llms.base import LanguageModel
from armap_lite.pipeline import evaluation, profiles, training_process
from armap_lite.pipeline.run_dir import RunDir
from armap_lite.planners.base import PlanResult
from armap_lite.storage.assets import check_path
from armap_lite.storage.store import read_json, write_atomic
from armap_lite.trajectory import PreferencePair, Task, Trajectory


class Run(RunDir):
    """`Run("some-world", "fast", "runs/fast", seed=0)`: the models load when they are first used.

    `policy`, `data_llm`, `reward`: the LLM that acts, the one that writes instructions, and a reward model's backbone,
    instead of the profile's. Each is an asset's name, a Hugging Face id or folder or a GGUF file, an LLM also a
    server's URL, and may be followed by options: "smollm2-135m-instruct dtype=float32" (see `llms.parse_spec`).
    `changes`: fields of the profile, e.g. test_tasks=4. Raises ValueError for an unknown or wrong setting, and for a
    folder that holds results of another configuration.
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
        settings = profiles.get(profile, env)
        if unknown := sorted(changes.keys() - vars(settings).keys()):
            known = ", ".join(sorted(vars(settings)))
            raise ValueError(f"a profile has no setting {unknown[0]!r}; there is {known}")
        changes |= {name: model for name, model in (("policy", policy), ("data_llm", data_llm)) if model is not None}
        settings = dataclasses.replace(settings, **changes)
        self.reward_options: dict[str, Any] = {}  # how the reward model is loaded
        if reward is not None:
            reward, self.reward_options = spec.check(reward, reward=True)
            check_path(reward)
            settings = dataclasses.replace(settings, reward=dataclasses.replace(settings.reward, backbone=reward))
        options = {**settings.env_options, **envs.user_options(env)}
        envs.check_options(env, options)
        planners.check(settings.planners)
        for model in (settings.policy, *([] if settings.data_llm is None else [settings.data_llm])):
            source, _ = spec.check(model)
            if not spec.is_url(source):
                check_path(source)
            elif "#" in source:  # checks the options' values; no request is sent
                llms.load(model)
        # A reader's own files, instructions or reward model are not judged by the model that the kit ships.
        own = envs.PATH_OPTIONS & options.keys() or reward is not None or settings.data_llm is not None
        self.settings = dataclasses.replace(settings, env_options=options, reference=settings.reference and not own)
        self.name, self.profile, self.seed = env, profile, seed
        super().__init__(Path(run_dir or f"runs/{profile}") / env)
        self.item_slice = slice(None)  # the part of each stage's items that is done here: see scale.py
        world: Any = envs.lookup(env)[0]
        version = getattr(world, "version", None)  # None: it is that of a package
        configuration = {"env": env, "profile": profile, "seed": seed, "version": version, **vars(self.settings)}
        configuration["hindsight_version"] = getattr(world, "hindsight_version", 1)
        del configuration["engine"]  # results do not depend on it
        configuration["reward_options"] = " ".join(spec.meaning(self.reward_options))
        if self._shipped:  # another version of the kit may ship another one
            weights = (self._shipped / "weights.safetensors").read_bytes()
            configuration["reference"] = hashlib.sha256(weights).hexdigest()
        self.claim(configuration, {**vars(profiles.Profile()), "reward_options": "", "hindsight_version": 1})

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: everything but what that process has to load itself."""
        return {k: v for k, v in vars(self).items() if not isinstance(getattr(Run, k, None), functools.cached_property)}

    @functools.cached_property
    def env(self) -> Environment:
        env = envs.make(self.name, **self.settings.env_options)
        if unknown := sorted(self.settings.control_weights.keys() - env.terms.keys()):
            env.close()
            raise ValueError(f"control_weights: no term {unknown[0]!r} in {self.name}; it has {', '.join(env.terms)}")
        return env

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

    @property
    def reward(self) -> Any:
        """The reward model that guides the planners."""
        return self.reference or self.own_reward

    @functools.cached_property
    def reference(self) -> Any:
        """The reward model that the kit ships for this world; None where there is none, or the profile has its own."""
        return reward.load(self._shipped, **self.settings.engine) if self._shipped else None

    @property
    def _shipped(self) -> Path | None:
        return envs.reward_model(self.name) if self.settings.reference else None

    @functools.cached_property
    def own_reward(self) -> Any:
        """The reward model that this run trains, or the finished one that it was given."""
        folder, backbone = self.path("reward_model"), self.settings.reward.backbone
        place = folder if folder.exists() or not reward.is_finished(backbone) else backbone
        return reward.load(place, **{**self.settings.engine, **self.reward_options})

    @functools.cached_property
    def train_tasks(self) -> list[Task]:
        return self.env.draw(self.settings.collect_tasks, self.seed)

    @functools.cached_property
    def test_tasks(self) -> list[Task]:
        return evenly_spaced(self.env.tasks("test"), self.settings.test_tasks)

    # Stage 1

    async def collect(self) -> Counter[str]:
        """Write trajectories.jsonl; returns the stage's counts."""
        tasks = self.train_tasks[self.item_slice]
        return await self._collect(tasks, "trajectories.jsonl", self.settings.num_proposals)

    async def _collect(self, tasks: Sequence[Task], name: str, num_proposals: int) -> Counter[str]:
        s = self.settings
        options: dict[str, Any] = {"samples": s.samples, "temperature": s.collect_temperature, "seed": self.seed}
        with self._stage("collect", len(tasks)) as progress:
            inputs = self.env, self.agent, tasks, self.path(name)
            return await collect.collect(*inputs, num_proposals=num_proposals, progress=progress, **options)

    async def trajectories(self) -> list[Trajectory]:
        """The trajectories of stage 1, which is first completed."""
        file = self.path("trajectories.jsonl")
        if not collect.complete(file, self.train_tasks, self.settings.samples):
            self._say(file, "trajectories")
            await self.collect()
        return collect.load(file)

    # Stage 2

    async def synthesize(self) -> Counter[str]:
        """Write pairs.jsonl and pairs.parquet; returns the stage's counts."""
        kinds = "num_negatives", "num_attempt_negatives", "num_graded", "swap_roles"
        options = {kind: getattr(self.settings, kind) for kind in kinds}
        if options["num_graded"] and self.settings.look_back(self.env) != "code":
            print("num_graded: no such pairs, as an LLM looks back, and only a world's code counts", file=sys.stderr)
        counts = await self._synthesize(await self.trajectories(), "pairs.jsonl", self.item_slice, **options)
        preferences.to_parquet(synthesize.load(self.path("pairs.jsonl")), self.path("pairs.parquet"))
        return counts

    async def _synthesize(
        self, trajectories: list[Trajectory], name: str, item_slice: slice = slice(None), **options: Any
    ) -> Counter[str]:
        options |= {"num_drafts": self.settings.num_drafts, "look_back": self.settings.look_back(self.env)}
        options |= {"item_slice": item_slice, "seed": self.seed}
        with self._stage("synthesize", len(trajectories[item_slice])) as progress:
            inputs = self.env, self.data_lm, trajectories, self.path(name)
            return await synthesize.synthesize(*inputs, progress=progress, **options)

    async def pairs(self) -> list[PreferencePair]:
        """The preference pairs of stage 2, which is first completed."""
        file = self.path("pairs.jsonl")
        if not synthesize.complete(file, await self.trajectories()):
            self._say(file, "preference pairs")
            await self.synthesize()
        pairs = synthesize.load(file)
        preferences.to_parquet(pairs, self.path("pairs.parquet"))  # replaces the table of an earlier pairs.jsonl
        return pairs

    async def test_pairs(self) -> list[PreferencePair]:
        """Pairs of development tasks, which neither training nor its early stopping has seen."""
        tasks = evenly_spaced(self.env.tasks("dev"), self.settings.dev_tasks)
        await self._collect(tasks, "dev_trajectories.jsonl", num_proposals=0)
        attempts = collect.load(self.path("dev_trajectories.jsonl"))
        executed, others = min(1, self.settings.num_negatives), min(2, self.settings.num_attempt_negatives)
        await self._synthesize(attempts, "dev_pairs.jsonl", num_negatives=executed, num_attempt_negatives=others)
        return synthesize.load(self.path("dev_pairs.jsonl"))

    # Stage 3

    async def train(self, **trainer_options: Any) -> dict[str, float]:
        """Write reward_model/ and training.json in a process of its own; returns the metrics in the latter.

        A model that was trained on the same pairs with the same settings is kept, and a finished reward model is not
        trained. `trainer_options`: see `training_process.train`.
        """
        s, file, source = self.settings, self.path("training.json"), self.path("pairs.jsonl")
        if not file.is_file() and reward.is_finished(s.reward.backbone):
            print(f"{s.reward.backbone} is a finished reward model: nothing is trained.", file=sys.stderr)
            write_atomic(file, json.dumps({"trained": False, "train_pairs": 0, "val_pairs": 0, "shortened": 0}))
        elif not file.is_file() or source.is_file():  # a worker of scale.py has the model without its pairs
            pairs = synthesize.load(source) if source.is_file() else []
            if not training_process.is_current(file, pairs, s.reward, s.training, self.seed):
                await self.pairs()
                training_process.stage(self.folder, s.reward, s.training, seed=self.seed, **trainer_options)
                vars(self).pop("own_reward", None)
        return training_process.metrics(file)

    async def margins(self) -> dict[str, list]:
        """Rewards of `test_pairs` by the run's own reward model, by the same network before training ("untrained_"),
        and by the one that the kit ships ("reference_").
        """
        file, config = self.path("margins.json"), self.settings.reward
        if not file.is_file():
            models = {"": self.own_reward, **({"reference_": self.reference} if self.reference else {})}
            if not reward.is_finished(config.backbone):
                models["untrained_"] = reward.untrained(config, self.seed)
            write_atomic(file, json.dumps(evaluation.score_pairs(await self.test_pairs(), models)))
        return read_json(file, "delete it, and the pairs are ranked anew")

    # Stage 4

    async def plan(self) -> list[PlanResult]:
        """Write plans.jsonl, and return what it holds."""
        if not self.path("training.json").exists():
            self._say(self.path("training.json"), "reward model")
        await self.train(enable_progress_bar=False)
        s, file, tasks = self.settings, self.path("plans.jsonl"), self.test_tasks[self.item_slice]
        count_seconds = functools.partial(self.add_counts, "seconds.json")
        count_seconds(dict.fromkeys(s.planners, 0.0))
        with self._stage("plan", len(tasks)) as progress:
            inputs = self.env, self.agent, self.reward, tasks, file, s.planners
            await planners.plan(*inputs, seed=self.seed, group=s.group, progress=progress, timed=count_seconds)
        return planners.load(file)

    async def plans(self) -> list[PlanResult]:
        """The plans of stage 4, which is first completed."""
        file = self.path("plans.jsonl")
        if not planners.complete(file, self.test_tasks, self.settings.planners):
            self._say(file, "plans")
            await self.plan()
        return planners.load(file)

    # Stage 5

    async def control(self) -> list[dict[str, Any]]:
        """Write control.jsonl, and return what it holds: see `control.choose_answers`."""
        terms, own = self.env.terms, self.settings.control_weights
        weights = {label: own.get(label, profiles.DEFAULT_CONTROL_WEIGHTS) for label in terms}
        return control.choose_answers(await self.plans(), terms, weights, self.path("control.jsonl"))

    # The result

    async def evaluate(self) -> dict[str, Any]:
        """Write evaluation.json, this environment's part of results.json. The only stage that asks the judge."""
        training, plans, margins = await self.train(), await self.plans(), await self.margins()
        found = evaluation.evaluate_run(self, training, plans, margins, await self.control())
        write_atomic(self.path("evaluation.json"), json.dumps(found))
        return found

    # What the stages share

    @contextlib.contextmanager
    def _stage(self, name: str, total: int) -> Iterator[Callable[[int], Any]]:
        """A progress bar, which yields its `update`; afterwards the answers of servers are counted for the report.

        Raises UnreadableAnswersError before and after if, over all stages, too many actions were drawn at random.
        """
        self.check_invalid_actions()
        try:
            with tqdm(total=total, desc=name) as bar:
                yield bar.update
        finally:
            for lm in filter(None, map(vars(self).get, ("lm", "data_lm"))):
                if counts := answers.taken(lm):
                    self.add_counts("answers.json", counts)
                    print(f"{lm.name}: {answers.invalid_action_summary(counts)}")
        self.check_invalid_actions()

    def check_invalid_actions(self) -> None:
        """Raise UnreadableAnswersError if too many actions of this run were drawn at random: see `answers.check`."""
        counts = self.counts("answers.json")
        if counts and self.item_slice == slice(None):  # the parts of a stage are judged together
            answers.check(counts, str(self.folder))

    def _say(self, file: Path, what: str) -> None:
        state, action = ("Incomplete", "finishing") if file.exists() else ("No", "making")
        place, profile = self.folder, self.profile
        print(f"{state} {what} in {place}: {action} them now, as profile {profile!r} says.", file=sys.stderr)


def evenly_spaced(tasks: Sequence[Task], n: int | None) -> list[Task]:
    """`n` of `tasks` at even distances (all of them for None): a representative sample of an ordered list."""
    if n is None or n >= len(tasks):
        return list(tasks)
    return [tasks[i * len(tasks) // n] for i in range(n)]
