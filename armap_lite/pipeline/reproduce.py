"""Runs the notebooks with papermill, one environment after the other, and gathers their results in one report."""

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from armap_lite import envs
from armap_lite.display.cells import for_world, notebook_paths
from armap_lite.display.report import write_report
from armap_lite.llms.spec import identity
from armap_lite.pipeline import profiles, results
from armap_lite.pipeline.run import Run
from armap_lite.storage.store import read_json, write_atomic

# The file that each notebook writes last, under the folder of its run.
STAGE_FILES = {
    "03": "pairs.jsonl",
    "04": "training.json",
    "05": "plans.jsonl",
    "06": "control.jsonl",
    "07": "evaluation.json",
}


class NotebookError(RuntimeError):
    """A notebook failed; the message names the notebook, the cell and the error."""


def reproduce(
    names: Sequence[str],
    profile: str,
    out: Path,
    *,
    policy: str | None = None,
    reward: str | None = None,
    data_llm: str | None = None,
    seed: int = 0,
    only: Sequence[str] = (),
) -> Path:
    """Run every notebook for each environment in `names`, then write `results.json` and `report.html` under `out`.

    Notebooks that an earlier call finished are skipped. Raises ValueError for an unknown name, NotebookError at the
    first notebook that fails. Returns the report's path, or `out` if the notebooks in `only` left nothing to report.
    """
    notebooks = notebook_paths()
    if missing := sorted(set(only) - {n.stem for n in notebooks}):
        raise ValueError(f"notebook {missing[0]!r} is not known; there is {', '.join(n.stem for n in notebooks)}")
    for name in names:  # a missing Java, an unknown name or a folder of another run is reported before any work
        options = profiles.get(profile, name).env_options
        with envs.make(name, **{**options, **envs.user_options(name)}) as env:
            if envs.user_options(name):
                env.tasks("test")  # reads a user's own files
        Run(name, profile, out, seed, policy, reward, data_llm)
    for name in names:
        parameters = {"ENV": name, "PROFILE": profile, "RUN_DIR": str(out.resolve()), "SEED": seed}
        parameters |= {"POLICY": policy, "REWARD": reward, "DATA_LLM": data_llm}
        for i, notebook in enumerate(notebooks, 1):
            if not only or notebook.stem in only:
                print(f"[{name} {i}/{len(notebooks)}] {notebook.stem}", flush=True)
                execute(notebook, out / name / "notebooks" / notebook.name, parameters)
    reportable = not only or any((out / name / "evaluation.json").is_file() for name in envs.ENVIRONMENTS)
    return gather(out) if reportable else out


def execute(notebook: Path, target: Path, parameters: dict[str, Any]) -> None:
    """Run the cells of `notebook` for the world `parameters["ENV"]` into `target`, saved after each cell.

    It is skipped if it was completed with the same source and parameters, and the stage files up to its own have not
    changed since. Raises NotebookError if it fails, ValueError for a parameter that it does not have.
    """
    import papermill
    from papermill.exceptions import PapermillException, PapermillExecutionError

    stamp = target.with_suffix(".done.json")
    # A change that leaves a model's identity the same, such as a server's port, is no reason to run a notebook again.
    models = {name: identity(m) for name in ("POLICY", "REWARD", "DATA_LLM") if (m := parameters.get(name))}
    key = {"parameters": parameters | models, "source": hashlib.sha256(notebook.read_bytes()).hexdigest()}
    if target.is_file() and stamp.is_file():
        done = read_json(stamp, "delete it, and the notebook runs again")
        if done.get("key") == key and done.get("files") == stage_fingerprints(target):
            print(f"    done before, {done['seconds']:.0f} s", flush=True)
            return
    if unknown := sorted(set(parameters) - set(papermill.inspect_notebook(str(notebook)))):
        raise ValueError(f"{notebook.name} has no parameter {unknown[0]!r}; its parameters cell must name it")
    cells = for_world(json.loads(notebook.read_text(encoding="utf-8")), parameters["ENV"])
    stamp.unlink(missing_ok=True)
    write_atomic(target, json.dumps(cells))
    start = time.perf_counter()
    try:
        with current_interpreter_kernel() as kernel:
            places = {"kernel_name": kernel, "cwd": str(notebook.parent)}
            papermill.execute_notebook(str(target), str(target), parameters, progress_bar=True, **places)
    except PapermillExecutionError as error:
        raise NotebookError(
            f"{notebook.name}, cell {error.exec_count}: {error.ename}: {error.evalue} (all cells so far: {target})"
        ) from error
    except (PapermillException, RuntimeError) as error:  # RuntimeError: the kernel died, perhaps for lack of memory
        raise NotebookError(f"{notebook.name}: {error}") from error
    took = time.perf_counter() - start
    write_atomic(stamp, json.dumps({"key": key, "seconds": took, "files": stage_fingerprints(target)}))
    stated = stated_minutes(notebook) if parameters["PROFILE"] == "fast" else None
    print(f"    {took:.0f} s{f', it says {stated} min' if stated else ''}", flush=True)
    if stated and took > 90 * stated:
        why = "a busy machine, or a processor that does not compute in bfloat16"
        print(f"    more than 1.5 times what it says: {why}", flush=True)


def stage_fingerprints(target: Path) -> dict[str, str]:
    """The stage files that exist when the notebook `target` has run, up to its own.

    For pairs and training, on which everything later depends, their SHA-256; for the others only that they exist.
    """
    found = {}
    for number, name in STAGE_FILES.items():
        file = target.parent.parent / name
        if number <= target.name[:2] and file.is_file():
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest() if number <= "04" else "exists"
    return found


@contextlib.contextmanager
def current_interpreter_kernel() -> Iterator[str]:
    """The name of a kernel that runs in this interpreter, whichever kernels of that name are installed."""
    from ipykernel.kernelspec import write_kernel_spec

    with tempfile.TemporaryDirectory() as folder:  # the first place where Jupyter searches
        # Below errors, a kernel logs only that its loopback connection is not encrypted.
        write_kernel_spec(os.path.join(folder, "kernels", "python3"), extra_arguments=["--log-level=ERROR"])
        path = os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))
        with mock.patch.dict(os.environ, JUPYTER_PATH=path):
            yield "python3"


def stated_minutes(notebook: Path, alone: bool = False) -> int | None:
    """The most minutes that the title cell of `notebook` states, if any; `alone`: where no earlier stage is done."""
    title = "".join(json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"])
    found = re.findall(r"(\d+) minutes?\b", title)
    return int(found[-1 if alone else 0]) if found else None


def gather(out: Path) -> Path:
    """Write `results.json` and `report.html` from what the notebooks left under `out`. Returns the report's path."""
    found = [out / name / "evaluation.json" for name in envs.ENVIRONMENTS]
    parts = [results.read_part(file) for file in found if file.is_file()]
    if not parts and (out / "evaluation.json").is_file():
        raise ValueError(f"{out} is the folder of one world; give the run's, {out.parent}")
    if not parts:
        raise ValueError(f"{out} holds no evaluation yet; run 'python -m armap_lite reproduce --out {out}' first")
    columns = {key: [row for part in parts for row in part[key]] for key in results.LISTS}
    file = out / "results.json"
    before = file.read_bytes() if file.is_file() else None
    results.write(file, results.versions(), **columns)
    try:
        return write_report(out)
    except BaseException:  # results and report belong together
        if before is None:
            file.unlink()
        else:
            write_atomic(file, before)
        raise
