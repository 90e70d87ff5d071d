"""What does a run wait for? `python tests/bench/where_time_goes.py [--env game24] [--profile fast] [--only 05_plan …]`

Runs the notebooks of one world as `reproduce` does, in an empty folder. In every Python process below this one (the
kernels, and training's own process) a thread looks 50 times a second at what the main thread does:
  loading     imports modules; reads, builds or checks a model
  model       computes in a language or reward model
  training    the same in training's process, which its kernel waits for
  simulator   is inside a world: its code, its Java process, its search engine
  drawing     makes a figure, a table or a widget
  python      anything else of ours or the notebook's
  around      starts and ends kernels, sends and saves notebooks: the seconds that no cell has
Seconds of the clock: on a busy machine all of them grow. Ratio: the run against the seconds of models, training and
simulators in it, which no other way of running the notebooks could leave out.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

KINDS = ("loading", "model", "training", "simulator", "drawing", "python", "around")
FOLDER = "ARMAP_WHERE_TIME_GOES"  # the variable that tells a process below where to leave its counts
PERIOD = 0.02
ROLES = {"training": "train", "kernel": "ipykernel_launcher"}  # and a word of such a process's command
# What a frame's file tells: of the rules that match anywhere in the stack, the first counts.
RULES = (
    ("loading", ("<frozen importlib", "storage/assets.py", "llms/plain.py:engine", "reward/model.py:build")),
    ("loading", ("armap_lite/llms/__init__.py:load", "armap_lite/reward/__init__.py")),
    ("drawing", ("/matplotlib/", "display/figures.py", "display/widgets.py", "display/play.py", "/ipywidgets/")),
    ("drawing", ("/IPython/core/display", "/IPython/core/formatters.py")),
    ("model", ("armap_lite/llms/", "armap_lite/reward/", "/torch/", "/transformers/", "/lightning/")),
    ("training", ("pipeline/training_process.py:train",)),
    ("simulator", ("armap_lite/envs/", "armap_lite/episode.py", "/py4j/", "/gymnasium/", "/minigrid/")),
)
WAITING = ("selectors.py:select", "/zmq/", "asyncio/base_events.py:_run_once")  # innermost: for the next cell


def kind_of(frame: FrameType | None) -> str:
    """What a thread with this innermost frame does; "" if it waits for its next cell."""
    stack = []
    while frame is not None:
        stack.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}".replace("\\", "/"))
        frame = frame.f_back
    if any(place in stack[0] for place in WAITING):
        return ""
    for kind, places in RULES:
        if any(place in one for one in stack for place in places):
            return kind
    return "python"


def watch(folder: Path) -> None:
    """Count in the background what the main thread of this process does, in a file of `folder`."""
    main, counts, file = threading.main_thread().ident, Counter[str](), folder / f"{os.getpid()}.json"
    role = next((role for role, word in ROLES.items() if word in sys.orig_argv), "")

    def look() -> None:
        before = written = time.perf_counter()
        while True:
            time.sleep(PERIOD)
            now = time.perf_counter()
            counts[kind_of(sys._current_frames().get(main or 0))] += now - before  # type: ignore[assignment]
            before = now
            if now - written > 0.5:  # a kernel may be killed at its end
                file.with_suffix(".part").write_text(json.dumps([role, counts]), encoding="utf-8")
                file.with_suffix(".part").replace(file)
                written = now

    threading.Thread(target=look, daemon=True).start()


def seconds_of(folder: Path, wall: float) -> dict[str, float]:
    """Seconds of each kind that the processes counted in `folder`, of a notebook that took `wall` seconds."""
    found, trained = Counter[str](), Counter[str]()
    for file in folder.glob("*.json"):
        role, counts = json.loads(file.read_text(encoding="utf-8"))
        {"training": trained, "kernel": found}.get(role, Counter()).update(counts)
    loading = min(trained["loading"], found["training"])  # of the training process, while its kernel waits
    found["loading"] += loading
    found["training"] -= loading
    seconds = {kind: found[kind] for kind in KINDS[:-1]}
    return seconds | {"around": max(0.0, wall - sum(seconds.values()))}


def row(name: str, seconds: dict[str, float]) -> str:
    return f"{name:<26}{sum(seconds.values()):>8.1f}" + "".join(f"{seconds[kind]:>10.1f}" for kind in KINDS)


def main() -> None:
    from armap_lite import envs
    from armap_lite.pipeline.reproduce import execute

    root = Path(envs.__file__).parents[2]  # PYTHONPATH=FOLDER: another checkout
    notebooks = sorted(root.glob("notebooks/[0-9][0-9]_*.ipynb"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="game24", choices=envs.ENVIRONMENTS)
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--policy", help="another model, for a quick look at all but the model's own time")
    parser.add_argument("--only", nargs="+", default=[n.stem for n in notebooks], choices=[n.stem for n in notebooks])
    options = parser.parse_args()
    details = {}
    print(f"{'seconds':<26}{'all':>8}" + "".join(f"{kind:>10}" for kind in KINDS))
    with tempfile.TemporaryDirectory() as scratch:
        hook = Path(scratch, "hook")
        hook.mkdir()
        code = f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import where_time_goes\n"
        code += f"import os, pathlib; where_time_goes.watch(pathlib.Path(os.environ[{FOLDER!r}]))\n"
        (hook / "sitecustomize.py").write_text(code, encoding="utf-8")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(hook), os.environ.get("PYTHONPATH")]))
        out = Path(scratch, "out")
        parameters = {"ENV": options.env, "PROFILE": options.profile, "RUN_DIR": str(out), "SEED": 0}
        for notebook in (n for n in notebooks if n.stem in options.only):
            counted = Path(scratch, notebook.stem)
            counted.mkdir()
            os.environ[FOLDER] = str(counted)
            start = time.perf_counter()
            models = {"POLICY": options.policy, "REWARD": options.policy} if options.policy else {}
            execute(notebook, out / options.env / "notebooks" / notebook.name, parameters | models)
            details[notebook.stem] = seconds_of(counted, time.perf_counter() - start)
            print(row(notebook.stem, details[notebook.stem]), flush=True)
    total = {kind: sum(found[kind] for found in details.values()) for kind in KINDS}
    print(row("all", total))
    useful = total["model"] + total["training"] + total["simulator"]
    details["all"] = total
    shown = {name: {kind: round(s, 1) for kind, s in found.items()} for name, found in details.items()}
    result = {"name": "where_time_goes", "ratio": round(sum(total.values()) / max(useful, PERIOD), 2)}
    result |= {"versus": "models, training and simulators alone", "unit": "times the seconds"}
    device = f"{os.cpu_count()} cores of {platform.machine()}"
    print(json.dumps({**result, "device": device, "details": {"env": options.env, **shown}}))


if __name__ == "__main__":
    main()
