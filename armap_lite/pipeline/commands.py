"""The command line: reproduce, train, report, assets, export."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from armap_lite.pipeline import training_process
from armap_lite.storage.store import escape_unencodable_output

SPEC = "asset, Hugging Face id, folder, GGUF or URL, with options: 'http://localhost:8000/v1#m concurrency=4'"
MODELS = {
    "policy": f"the LLM that acts: {SPEC}",
    "data-llm": "the LLM that writes instructions (default: the policy)",
    "reward": "backbone of the reward model, or a finished one: asset, Hugging Face id or folder",
}
RAY = "first distribute the tasks over Ray's workers (RAY_ADDRESS: a cluster); resources per worker, e.g. num_cpus=4"


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Exit status 0 only if all of it worked; an error is one line, or a traceback with --debug."""
    escape_unencodable_output()
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            raise
        print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(prog="python -m armap_lite", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[debug], help=text)
        added.set_defaults(run=run)
        return added

    run = command("reproduce", _reproduce, "run the notebooks and write the report")
    run.add_argument("--env", nargs="+", metavar="NAME", help="environments (default: all there are)")
    run.add_argument("--profile", default="fast", help="fast, laptop, gpu or paper")
    run.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/PROFILE)")
    for name, text in MODELS.items():
        run.add_argument(f"--{name}", type=_absolute, metavar="SPEC", help=text)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--only", nargs="+", default=[], metavar="NOTEBOOK", help="some notebooks, e.g. 05_plan")
    run.add_argument("--ray", nargs="*", type=_resource, metavar="RESOURCE=AMOUNT", help=RAY)
    train = command("train", training_process.main, "train a reward model on preference pairs in a file")
    training_process.add_arguments(train)
    command("report", _report, "write results.json, report.html and site/ again").add_argument("dir", type=Path)
    assets = command("assets", _assets, "list assets, or fetch the named ones")
    assets.add_argument("names", nargs="*", metavar="NAME")
    export = command("export", _export, "write a reward model as a Hugging Face folder")
    export.add_argument("model", type=Path, metavar="REWARD_MODEL", help="e.g. runs/fast/ENV/reward_model")
    export.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    small = (
        "instead write what it learned in the kit's own form, by this rank and in half precision, as models are shipped"
    )
    export.add_argument("--low-rank", type=int, metavar="RANK", help=small)
    return parser


def _absolute(spec: str) -> str:
    """A model's spec with an absolute path, if it names a file or folder: the notebooks have another working folder."""
    from armap_lite.llms.spec import parse_spec

    try:
        source, _ = parse_spec(spec)
    except ValueError as error:  # argparse shows the text of its own error only
        raise argparse.ArgumentTypeError(str(error)) from error
    path = Path(source).expanduser()
    return str(path.resolve()) + spec.strip()[len(source) :] if source and path.exists() else spec


def _resource(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        return name, float(amount)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not RESOURCE=AMOUNT, as in num_cpus=4") from None


def _reproduce(options: argparse.Namespace) -> None:
    from armap_lite import envs
    from armap_lite.pipeline import reproduce

    names, out = options.env or list(envs.ENVIRONMENTS), options.out or Path("runs") / options.profile
    models = {"policy": options.policy, "reward": options.reward, "data_llm": options.data_llm, "seed": options.seed}
    if options.ray is not None:
        from armap_lite.pipeline import scale

        for name in names:
            scale.run_stages(reproduce.Run(name, options.profile, out, **models), **dict(options.ray))
    _show(reproduce.reproduce(names, options.profile, out, **models, only=options.only))


def _report(options: argparse.Namespace) -> None:
    from armap_lite.pipeline import reproduce

    _show(reproduce.gather(options.dir))


def _show(written: Path) -> None:
    """Print where the report is, and on stderr where the site is; nothing is rendered before the first evaluation."""
    print(written, flush=True)
    if written.is_file():
        print(f"the same as a site: {written.parent / 'site/index.html'}", file=sys.stderr)


def _assets(options: argparse.Namespace) -> None:
    from armap_lite.storage import assets

    if not options.names:
        print(assets.describe())
    for name in options.names:
        path = assets.fetch(name)
        print(assets.resolve_model(name) if path.suffix == ".gguf" else path)


def _export(options: argparse.Namespace) -> None:
    from armap_lite.exchange.export import export, shrink

    if options.low_rank is not None:
        shrink(options.model, options.out, options.low_rank)
    elif export(options.model, options.out)["config"].vision:
        print("without its pictures: the exported model scores the text alone", file=sys.stderr)
    print(options.out)
