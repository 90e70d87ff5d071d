"""The command line: reproduce, train, report, assets, export."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from armap_lite.pipeline import training_process
from armap_lite.storage.store import escape_unencodable_output


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 only where all of it worked; an error is one line on stderr, `--debug` shows the trace."""
    escape_unencodable_output()
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    parser = argparse.ArgumentParser(prog="armap_lite", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    spread = "first spread the tasks over Ray's workers (RAY_ADDRESS: a cluster); what each takes, e.g. num_cpus=4"
    run = commands.add_parser("reproduce", parents=[debug], help="run the notebooks and write the report")
    run.add_argument("--env", nargs="+", metavar="NAME", help="environments (default: all there are)")
    run.add_argument("--profile", default="fast", help="fast, laptop, gpu or paper")
    run.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/PROFILE)")
    spec = "asset, Hugging Face id, folder, GGUF or URL, with options: 'http://localhost:8000/v1#m concurrency=4'"
    run.add_argument("--policy", type=place, metavar="SPEC", help=f"the LLM that acts: {spec}")
    run.add_argument(
        "--data-llm", type=place, metavar="SPEC", help="the LLM that words instructions (default: the policy)"
    )
    backbone = "backbone of the reward model, or a finished one: asset, Hugging Face id or folder"
    run.add_argument("--reward", type=place, metavar="SPEC", help=backbone)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--only", nargs="+", default=[], metavar="NOTEBOOK", help="some notebooks, e.g. 05_plan")
    run.add_argument("--ray", nargs="*", type=resource, metavar="RESOURCE=AMOUNT", help=spread)
    train = commands.add_parser("train", parents=[debug], help="train a reward model on preference pairs in a file")
    training_process.add_arguments(train)
    report = commands.add_parser("report", parents=[debug], help="write results.json, report.html and site/ again")
    report.add_argument("dir", type=Path)
    assets = commands.add_parser("assets", parents=[debug], help="list assets, or fetch the named ones")
    assets.add_argument("names", nargs="*", metavar="NAME")
    export = commands.add_parser("export", parents=[debug], help="write a reward model as a Hugging Face folder")
    export.add_argument("model", type=Path, metavar="REWARD_MODEL", help="e.g. runs/fast/game24/reward_model")
    export.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    options = parser.parse_args(arguments)
    try:
        if options.command == "assets":
            _assets(options.names)
        elif options.command == "export":
            _export(options.model, options.out)
        elif options.command == "train":
            training_process.main(options)
        else:
            from armap_lite import envs
            from armap_lite.pipeline import reproduce

            if options.command == "report":
                _show(reproduce.gather(options.dir))
            else:
                out = options.out or Path("runs") / options.profile
                names = options.env or list(envs.ENVIRONMENTS)
                settings = {
                    "policy": options.policy,
                    "reward": options.reward,
                    "data_llm": options.data_llm,
                    "seed": options.seed,
                    "only": options.only,
                }
                if options.ray is not None:
                    from armap_lite.pipeline import scale

                    for name in names:
                        models = options.seed, options.policy, options.reward, options.data_llm
                        scale.run_stages(reproduce.Run(name, options.profile, out, *models), **dict(options.ray))
                _show(reproduce.reproduce(names, options.profile, out, **settings))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            raise
        print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


def place(spec: str) -> str:
    """A model's spec, a folder or file in it by its absolute path: the notebooks run elsewhere."""
    from armap_lite.llms.spec import parse_spec

    source, _ = parse_spec(spec)
    path = Path(source).expanduser()
    return str(path.resolve()) + spec.strip()[len(source) :] if path.exists() else spec


def resource(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    return name, float(amount)


def _show(written: Path) -> None:
    """Say where the report is, and on stderr where the same is as a site, or what that needs; not all runs have one."""
    from armap_lite.display import site

    print(written, flush=True)
    if written.is_file() and site.missing():
        print("no site beside it: that needs 'pip install armap-lite[site]'", file=sys.stderr)
    elif written.is_file():
        print(f"the same as a site: {site.write_site(written.parent)}", file=sys.stderr)


def _assets(names: list[str]) -> None:
    from armap_lite.storage import assets

    if not names:
        print(assets.describe())
    for name in names:
        path = assets.fetch(name)
        print(assets.resolve_model(name) if path.suffix == ".gguf" else path)


def _export(model: Path, out: Path) -> None:
    from armap_lite.exchange import card
    from armap_lite.exchange.export import export

    exported = export(model, out)
    print(card.write(exported, model, out).parent)
    if exported["config"].vision:
        print("without its pictures: the exported model scores the text alone", file=sys.stderr)
    if exported["bias"]:
        print(f"the kit's scores are those of the exported model plus {exported['bias']:.6g}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
