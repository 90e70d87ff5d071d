"""Training in a process of its own: `python -m armap_lite train`, and `train`, which starts it and shows its progress.

A notebook cannot start several ranks, and a GPU's memory is free again only when the process that used it has ended.
This module imports neither torch nor Lightning: the process that waits needs none of it.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from armap_lite.llms.spec import parse_spec
from armap_lite.reward.config import RewardConfig, TrainingConfig, read_json, same_source, trained_on
from armap_lite.storage.store import write_atomic
from armap_lite.trajectory import PreferencePair

STEP = re.compile(r"step (\d+) of (\d+):? ?(.*)")  # what `Progress` prints
PAIRS = "preference pairs (.jsonl, .json, .parquet): TRL's columns, published rows, or what stage 2 writes"
PACKAGE = Path(__file__).resolve().parents[2]  # the folder that holds armap_lite
DERIVED = ("margins.json", "plans.jsonl", "seconds.json", "control.jsonl", "evaluation.json")  # from a reward model
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")  # set by those who start ranks; the first has 0 in all
READ: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
GRACE = 10.0  # seconds that a process has to end by itself


class TrainingError(RuntimeError):
    """Training failed; the message is the last that its process said."""


def is_current(
    file: Path, pairs: Sequence[PreferencePair], reward: RewardConfig, training: TrainingConfig, seed: int
) -> bool:
    """Whether `file`, a training.json, says that `pairs` were trained on with these settings, or nothing had to be."""
    known = read_json(file) if file.is_file() else {}
    return known.get("trained") is False or same_source(
        known.get("trained_on"), trained_on(pairs, reward, training, seed)
    )


def stage(folder: Path, reward: RewardConfig, training: TrainingConfig, *, seed: int = 0, **options: Any) -> None:
    """Train on pairs.jsonl in `folder`, and write reward_model/ and training.json there.

    Files derived from an earlier model are renamed to *.old. `options`: those of `train`.
    """
    file = folder / "training.json"
    if file.is_file():
        print(f"{file} names other pairs or settings: a reward model is trained anew", file=sys.stderr)
    found = train(folder / "pairs.jsonl", folder / "reward_model", reward, training, seed=seed, **options)
    if file.is_file() and read_json(file) == found:  # another process trained it, and plans with it by now
        return
    for old in filter(Path.exists, map(folder.joinpath, DERIVED)):
        old.replace(old.with_name(f"{old.name}.old"))
    write_atomic(file, json.dumps(found, indent=1))


def metrics(file: Path) -> dict[str, float]:
    """The metrics in training.json."""
    known = read_json(file)
    return {name: value for name, value in known.items() if name != "trained_on"}


def train(
    pairs: Path,
    out: Path,
    reward: RewardConfig,
    training: TrainingConfig,
    *,
    seed: int = 0,
    enable_progress_bar: bool = True,
    **trainer_options: Any,
) -> dict[str, Any]:
    """Run `training.train` on the file `pairs` (see `exchange/preferences.py`) in a process of its own.

    That process ends with this one, also on an interrupt. Returns the content of `out`/training.json. Raises
    TrainingError if it fails.
    """
    command = [sys.executable, "-m", "armap_lite", "train", "--attended", "--pairs", str(pairs), "--out", str(out)]
    command += ["--seed", str(seed), "--trainer", json.dumps(trainer_options), *_flags(reward), *_flags(training)]
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    if PACKAGE.name != "site-packages":  # a checkout that is not installed, or not in this version
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE), env.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
        errors="replace", env=env,
    )  # fmt: skip
    assert process.stdin and process.stdout
    # Ranks that outlive the first hold its stdout open, and end when their stdin is closed.
    threading.Thread(target=lambda: (process.wait(), process.stdin.close()), daemon=True).start()  # type: ignore
    last, found = "", ""
    try:
        with tqdm(desc="train", disable=not enable_progress_bar) as bar:
            for line in map(str.strip, process.stdout):
                if step := STEP.fullmatch(line):
                    if bar.total is None:
                        bar.reset(int(step[2]))
                    found = step[3] or found
                    bar.set_postfix_str(found, refresh=False)
                    bar.update(int(step[1]) - bar.n)
                elif line:
                    if not line.startswith("error: "):  # that one is raised below
                        bar.write(line, file=sys.stderr)
                    if not last.startswith("error: "):  # after one, Lightning may speak of its other ranks
                        last = line
        process.wait()
    finally:
        process.stdin.close()  # which ends a process that still runs, and all its ranks
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
    if process.returncode:
        ended = f"signal {-process.returncode}" if process.returncode < 0 else f"exit status {process.returncode}"
        more = " (out of memory, perhaps)" if process.returncode == -9 else ""
        raise TrainingError(f"training failed: {last.removeprefix('error: ') or 'no message'} [{ended}{more}]")
    return read_json(out / "training.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m armap_lite train`: one for each field of `RewardConfig` and `TrainingConfig`."""
    parser.add_argument("--pairs", type=Path, required=True, metavar="FILE", help=PAIRS)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the reward model")
    parser.add_argument("--seed", type=int, default=0)
    for kind in (RewardConfig, TrainingConfig):
        group = parser.add_argument_group(f"fields of {kind.__name__}, see reward/config.py")
        for field in dataclasses.fields(kind):
            shown = {"num_layers": "all"}.get(field.name, "none") if field.default is None else field.default
            group.add_argument(
                _flag(field.name),
                type=functools.partial(_value, str(field.type)),
                default=field.default,
                metavar="NAME" if field.name == "backbone" else "X",
                help=f"default: {shown}",
            )
    parser.add_argument("--trainer", type=_options, default={}, metavar="JSON", help="options of Lightning's Trainer")
    parser.add_argument("--attended", action="store_true", help=argparse.SUPPRESS)  # ends when stdin is closed


def main(options: argparse.Namespace) -> None:
    """`python -m armap_lite train`, and each rank of it that Lightning starts by the same command line."""
    if options.attended:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else tokenizers warns of each worker that is forked
    from armap_lite.exchange import preferences
    from armap_lite.storage import folders

    if parse_spec(options.backbone)[1]:
        raise ValueError(f"--backbone={options.backbone!r}: expected a name without options")
    config = RewardConfig(**{field.name: getattr(options, field.name) for field in dataclasses.fields(RewardConfig)})
    names = [field.name for field in dataclasses.fields(TrainingConfig)]
    settings = TrainingConfig(**{name: getattr(options, name) for name in names})
    folders.log_of(options.out)
    pairs, file = preferences.read(options.pairs), options.out / "training.json"
    first = not any(int(os.environ.get(name, "0")) for name in RANKS)
    with folders.alone(options.out) if first else contextlib.nullcontext():  # the other ranks belong to the first
        if file.is_file():
            source = trained_on(pairs, config, settings, options.seed)
            same = same_source(read_json(file).get("trained_on"), source)
            if first:
                was = "was trained on these pairs with these settings before"
                other = "holds a model of other pairs or settings; it stays until the new one is complete"
                print(f"{options.out} {was if same else other}")
            if same:
                return
        from armap_lite.pipeline.training_progress import Progress
        from armap_lite.reward import training

        progress = {"enable_progress_bar": False, "callbacks": [Progress()]}
        more = {**options.trainer, **progress, "seed": options.seed}
        end = training.train(pairs, options.out, config, settings, **more)
    if first and not options.attended:
        accuracy = f"accuracy {end['val_accuracy']:.3f} on {end['val_pairs']} held-out pairs"
        print(f"{options.out}: {end['train_pairs']} pairs, {end['steps']} steps, {accuracy}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _flags(settings: RewardConfig | TrainingConfig) -> list[str]:
    """The fields of `settings` as options of the command line."""
    fields = dataclasses.asdict(settings).items()
    return [f"{_flag(name)}={'none' if value is None else value}" for name, value in fields]


def _value(annotation: str, text: str) -> Any:
    """The value of an option from its `text`; `annotation`: that of its field, such as "int | None"."""
    kind, _, optional = annotation.partition(" | ")
    if optional and text.lower() in ("none", "all"):
        return None
    with contextlib.suppress(KeyError, ValueError):
        return {"true": True, "false": False}[text.lower()] if kind == "bool" else READ[kind](text)
    raise argparse.ArgumentTypeError(f"{text!r} is no {kind}")


def _options(text: str) -> dict[str, Any]:
    """The options of Lightning's Trainer in `text`, a JSON object."""
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(found := json.loads(text), dict):
            return found
    example = '{"accelerator": "cpu"}'
    raise argparse.ArgumentTypeError(f"{text!r:.80} is no JSON object; expected one such as '{example}'")


def _end_with_parent() -> None:
    """Wait until the pipe on stdin is closed, by the parent or by its death, and end at once."""
    while os.read(0, 1):  # not sys.stdin: its lock would be held where a worker is forked
        pass
    os._exit(130)
