"""Does each notebook run by itself, with nothing from any other, in the minutes that its opening says?

python tests/bench/notebooks_alone.py [--env game24 …] [--only 05_plan …] [--keep DIR]

Each runs from a clean kernel in an empty folder, profile `fast`. Against the minutes it says for just that ("with
nothing there", where it says so). The ratio is that of the slowest; one above 1 took longer than it says. `--keep`
leaves the executed notebooks, and all that they made, under DIR.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from armap_lite import envs
from armap_lite.display.cells import notebook_paths
from armap_lite.pipeline.reproduce import NotebookError, execute, stated_minutes


def main() -> int:
    """Exit status 1 where a notebook failed; it is named, and the others still run."""
    notebooks = notebook_paths()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", nargs="+", default=list(envs.ENVIRONMENTS), choices=envs.ENVIRONMENTS)
    parser.add_argument("--only", nargs="+", default=[n.stem for n in notebooks], choices=[n.stem for n in notebooks])
    parser.add_argument("--keep", type=Path, metavar="DIR")
    options = parser.parse_args()
    details, failed = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for env in options.env:
            for notebook in (n for n in notebooks if n.stem in options.only):
                out = (options.keep or Path(scratch)).resolve() / env / notebook.stem
                if out.exists():
                    parser.error(f"{out} is there already; alone means in an empty folder: name another with --keep")
                parameters = {"ENV": env, "PROFILE": "fast", "RUN_DIR": str(out), "SEED": 0}
                start = time.perf_counter()
                try:
                    with contextlib.redirect_stdout(io.StringIO()):  # it compares with a run that goes on from others
                        execute(notebook, out / "notebooks" / notebook.name, parameters)
                except NotebookError as error:
                    failed.append(str(error))
                    print(error, file=sys.stderr)
                minutes = (time.perf_counter() - start) / 60
                row = {"env": env, "notebook": notebook.stem, "minutes": round(minutes, 2)}
                details.append(row | {"says": stated_minutes(notebook, alone=True) or 1})
                print(details[-1], flush=True)
    worst = max(details, key=lambda row: row["minutes"] / row["says"])
    found = {"name": "notebooks_alone", "ratio": round(worst["minutes"] / worst["says"], 2)}
    found |= {"versus": f"what {worst['notebook']} says it takes in {worst['env']}", "unit": "minutes / minutes said"}
    print(json.dumps({**found, "device": f"{os.cpu_count()} cores of {platform.machine()}", "details": details}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
