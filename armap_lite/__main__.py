"""The command line: reproduce, report, assets."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 only where all of it worked; an error is one line on stderr, `--debug` shows the trace."""
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    parser = argparse.ArgumentParser(prog="armap_lite", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("reproduce", parents=[debug], help="run the notebooks and write the report")
    run.add_argument("--env", nargs="+", metavar="NAME", help="environments (default: all there are)")
    run.add_argument("--profile", default="fast", help="fast, laptop, gpu or paper")
    run.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/PROFILE)")
    run.add_argument("--policy", metavar="SPEC", help="the LLM that acts: asset, Hugging Face id, folder, GGUF or URL")
    run.add_argument("--reward", metavar="SPEC", help="backbone of the reward model: asset, Hugging Face id or folder")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--only", nargs="+", default=[], metavar="NOTEBOOK", help="some notebooks, e.g. 05_plan")
    report = commands.add_parser("report", parents=[debug], help="write results.json and report.html again")
    report.add_argument("dir", type=Path)
    assets = commands.add_parser("assets", parents=[debug], help="list assets, or fetch the named ones")
    assets.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args(arguments)
    try:
        if options.command == "assets":
            _assets(options.names)
        else:
            from armap_lite import envs, reproduce

            if options.command == "report":
                print(reproduce.gather(options.dir))
            else:
                out = options.out or Path("runs") / options.profile
                names = options.env or list(envs.ENVIRONMENTS)
                settings = {
                    "policy": options.policy,
                    "reward": options.reward,
                    "seed": options.seed,
                    "only": options.only,
                }
                print(reproduce.reproduce(names, options.profile, out, **settings))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            raise
        print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


def _assets(names: list[str]) -> None:
    from armap_lite import assets

    if not names:
        print(assets.describe())
    for name in names:
        path = assets.fetch(name)
        print(assets.resolve_model(name) if path.suffix == ".gguf" else path)


if __name__ == "__main__":
    sys.exit(main())
