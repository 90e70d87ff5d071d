"""A class on one server: minutes and memory where several users run a notebook at once.

python tests/bench/classroom.py RUN [--env game24] [--notebook 05_plan] [--users 1 4 8]

Each user has a copy of RUN, which is a finished run of profile `fast`, and runs all cells of the notebook in a kernel
of their own with one thread. Memory is what a user's processes add (USS: what would be free again without them), at
its highest. Last line: JSON, ratio = minutes with the most users to minutes with the fewest.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from armap_lite import envs
from armap_lite.pipeline import results

RUN_ALL = """
import sys
from pathlib import Path
from armap_lite.display.cells import notebook_paths
from armap_lite.pipeline.reproduce import execute
env, name, out = sys.argv[1:]
notebook = next(path for path in notebook_paths() if path.stem == name)
parameters = {"ENV": env, "PROFILE": "fast", "RUN_DIR": out, "SEED": 0}
execute(notebook, Path(out) / env / "mine" / notebook.name, parameters)
"""


def memory(user: subprocess.Popen[bytes]) -> int:
    """Bytes that only the processes of one user hold."""
    found = 0
    try:
        for process in (root := psutil.Process(user.pid), *root.children(recursive=True)):
            found += process.memory_full_info().uss
    except psutil.Error:  # a process that ended meanwhile
        pass
    return found


def together(count: int, options: argparse.Namespace, scratch: Path) -> dict[str, float]:
    """What `count` users wait and hold who begin at once."""
    users, highest, start = [], [0] * count, time.monotonic()
    for i in range(count):
        own = scratch / f"{count}-{i}"
        shutil.copytree(options.run / options.env, own / options.env)
        with (own / "log").open("wb") as log:
            call = [sys.executable, "-c", RUN_ALL, options.env, options.notebook, str(own)]
            env = os.environ | {"OMP_NUM_THREADS": "1"}
            users.append(subprocess.Popen(call, stdout=log, stderr=log, env=env))
    while any(user.poll() is None for user in users):
        highest = [max(pair) for pair in zip(highest, map(memory, users), strict=True)]
        time.sleep(1)
    if failed := [i for i, user in enumerate(users) if user.returncode]:
        log = (scratch / f"{count}-{failed[0]}" / "log").read_text(encoding="utf-8")
        raise SystemExit(f"user {failed[0]} failed:\n{log[-2000:]}")
    minutes = (time.monotonic() - start) / 60
    return {"users": count, "minutes": round(minutes, 2), "GB a user": round(max(highest) / 1e9, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run's folder")
    parser.add_argument("--env", default="game24", choices=envs.ENVIRONMENTS)
    parser.add_argument("--notebook", default="05_plan")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 4, 8])
    options = parser.parse_args()
    details = []
    with tempfile.TemporaryDirectory() as scratch:
        for count in sorted(options.users):
            details.append(together(count, options, Path(scratch)))
            print(details[-1], flush=True)
    head = {"name": "classroom", "ratio": round(details[-1]["minutes"] / details[0]["minutes"], 2)}
    head |= {"versus": f"{details[0]['users']} user", "unit": f"minutes of {options.notebook}, {options.env}"}
    print(json.dumps({**head, "device": f"{os.cpu_count()} cores, {results.versions()['cpu']}", "details": details}))


if __name__ == "__main__":
    main()
