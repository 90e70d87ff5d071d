"""`results.json`, schema 1: the fields of its rows, and the versions and machine that made it."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from inspect import formatannotation
from pathlib import Path
from typing import Any

from armap_lite import evaluate
from armap_lite.storage.store import read_json, write_atomic

NUMBER = int | float
LISTS = ("rows", "differences", "reward_model", "control")
SCHEMA: dict[str, Any] = {"schema": int, "versions": dict, **dict.fromkeys(LISTS, list)}
ROW: dict[str, Any] = {
    **dict.fromkeys(("env", "env_version", "split", "metric", "planner", "policy"), str),
    "reward_model": str | None,
    "profile": str,
    **dict.fromkeys(("seed", "n"), int),
    **dict.fromkeys(("mean", "ci_low", "ci_high"), NUMBER),
    **dict.fromkeys((*evaluate.COSTS, "failures"), int),
    "seconds": NUMBER,
    "device": str,
}
REWARD_ROW: dict[str, Any] = {
    "env": str,
    "model": str,  # "own": trained by this run; "reference": the one that the kit ships
    **dict.fromkeys(("pair_accuracy", "ci_low", "ci_high"), NUMBER),
    **dict.fromkeys(("n_pairs", "n_tasks"), int),
    "baseline": NUMBER | None,  # pair accuracy of the same network before training
    # Of the attempts of Best-of-N: see `evaluate.order_of_attempts`.
    **dict.fromkeys(("order_accuracy", "order_ci_low", "order_ci_high"), NUMBER | None),
    **dict.fromkeys(("order_n_pairs", "order_n_tasks"), int),
    "shortened": NUMBER | None,  # share of the trajectories in its training pairs that lost their middle
    "shortened_planned": NUMBER,  # the same share of the attempts that it scored in planning
}
DIFFERENCE: dict[str, Any] = {
    **dict.fromkeys(("env", "planner", "versus"), str),
    **dict.fromkeys(("difference", "ci_low", "ci_high"), NUMBER),  # of the scores of two planners on the same tasks
    "p_value": NUMBER,
    "n": int,
}


def read_part(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The lists of one environment's evaluation.json. Raises ValueError with the file's name if they are not valid."""
    way_out = "run notebook 07_results again"
    part = read_json(file, way_out)
    try:
        lists = {name: part[name] for name in LISTS}
        validate({"schema": 1, "versions": {}, **lists})
        if not lists["rows"]:
            raise ValueError("rows is empty")
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{file}: {said}; {way_out}") from error
    return lists


def versions() -> dict[str, str | None]:
    """Python, machine, and the versions of the packages that matter (None: not installed)."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    found = {"python": platform.python_version(), "platform": platform.platform(), "cpu": _cpu(), "gpu": gpu}
    for name in ("armap_lite", "torch", "transformers", "lightning", "datasets", "peft"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or a processor that does not give its name there
        return platform.processor() or platform.machine()


def write(path: Path, versions: Mapping[str, str | None], **lists: Sequence[Mapping[str, Any]]) -> None:
    """Write `results.json` atomically; `lists`: those of `LISTS`. Raises ValueError if it is not valid."""
    results = {"schema": 1, "versions": dict(versions), **lists}
    validate(results)
    write_atomic(path, json.dumps(results, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def validate(results: Mapping[str, Any]) -> None:
    """Raise ValueError if `results` is not schema 1: fields, types, planners, order of intervals, NaN."""
    _check("results", results, SCHEMA)
    if results["schema"] != 1:
        raise ValueError(f"results: schema {results['schema']} is not known; expected 1")
    kinds = (
        ("rows", ROW, "mean", ""),
        ("differences", DIFFERENCE, "difference", ""),
        ("reward_model", REWARD_ROW, "pair_accuracy", ""),
        ("reward_model", REWARD_ROW, "order_accuracy", "order_"),
    )
    for name, fields, middle, prefix in kinds:
        for i, row in enumerate(results[name]):
            _check(f"{name}[{i}]", row, fields, signed=name == "differences")
            low, mean, high = row[f"{prefix}ci_low"], row[middle], row[f"{prefix}ci_high"]
            if mean is not None and not low <= mean <= high <= 1:
                raise ValueError(f"{name}[{i}]: ci_low {low} <= {middle} {mean} <= ci_high {high} <= 1 does not hold")
            for planner in (row[key] for key in ("planner", "versus") if key in row):
                if planner not in evaluate.PLANNERS:
                    known = ", ".join(evaluate.PLANNERS)
                    raise ValueError(f"{name}[{i}]: planner {planner!r} is not known; expected one of {known}")
    try:
        json.dumps(results["control"], allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"control: {error}; expected plain JSON with finite numbers") from error


def _check(where: str, record: Mapping[str, Any], fields: Mapping[str, Any], signed: bool = False) -> None:
    if record.keys() != fields.keys():
        missing, unknown = sorted(fields.keys() - record.keys()), sorted(record.keys() - fields.keys())
        raise ValueError(f"{where}: missing fields {missing}, unknown fields {unknown}")
    for name, kind in fields.items():
        value = record[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            expected = f"{value!r}, {type(value).__name__}; expected {formatannotation(kind)}"
            raise ValueError(f"{where}: {name} is {expected}")
        if isinstance(value, (int, float)) and not (math.isfinite(value) and (signed or value >= 0)):
            expected = "a finite number" if signed else "a finite number, not negative"
            raise ValueError(f"{where}: {name} is {value}; expected {expected}")
