"""Run a script that uses the names modules and options had before: `python tests/former_names.py SCRIPT [ARG …]`."""

import functools
import importlib
import runpy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import armap_lite
from armap_lite.reward.config import RewardConfig, TrainingConfig
from armap_lite.storage.former_names import FORMER_NAMES

# In armap_lite: former name, present name.
MODULES = {"assets": "storage.assets", "profiles": "pipeline.profiles", "run": "pipeline.run"}


def with_former_names(
    function: Callable[..., Any], names: Mapping[str, str], values: Mapping[str, str] | None = None
) -> Callable[..., Any]:
    """`function`, which also takes its keyword arguments under their former `names`, with their former `values`."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        former = {names[name]: options.pop(name) for name in names.keys() & options.keys()}
        if values:
            former = {name: values.get(value, value) for name, value in former.items()}
        return function(*arguments, **options | former)

    return call


def main(script: Path, arguments: list[str]) -> None:
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))
    if "--fake" in arguments:
        import fake_device  # beside the script: torch has to know the simulated GPU before anything looks for one

        fake_device.install()
    for former, name in MODULES.items():
        module = importlib.import_module(f"armap_lite.{name}")
        sys.modules[f"armap_lite.{former}"] = module
        setattr(armap_lite, former, module)
    for kind in (RewardConfig, TrainingConfig):
        kind.__init__ = with_former_names(kind.__init__, FORMER_NAMES)  # type: ignore[method-assign]
    from armap_lite.llms.local import LocalLM
    from armap_lite.pipeline import run

    run.Run.__init__ = with_former_names(run.Run.__init__, FORMER_NAMES)  # type: ignore[method-assign]
    choose = with_former_names(LocalLM.choose, {"by": "decoding"}, {"string": "sequence"})
    LocalLM.choose = choose  # type: ignore[method-assign]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
