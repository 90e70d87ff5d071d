"""The command line of the exercises: copies of the notebooks for students and instructors, and grades."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 only where all of it worked; an error is one line on stderr."""
    from armap_lite.course import grade, notebooks, slides
    from armap_lite.envs import ENVIRONMENTS
    from armap_lite.storage.store import escape_unencodable_output

    escape_unencodable_output()
    parser = argparse.ArgumentParser(prog="armap_lite.course", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    whole, gaps = "of one world", "with the gaps filled"
    for kind, what in (("reader", whole), ("student", "without solutions"), ("instructor", gaps)):
        copies = commands.add_parser(kind, help=f"copies of the notebooks {what}")
        copies.add_argument("out", type=Path, nargs="?", default=Path("build") / kind, help=f"default: build/{kind}")
        copies.add_argument("--env", choices=ENVIRONMENTS, default="game24", help="the world (default: game24)")
    course = commands.add_parser("nbgrader", help="the exercises as a course for nbgrader: one assignment each")
    course.add_argument("out", type=Path, nargs="?", default=Path("build/nbgrader"), help="default: build/nbgrader")
    decks = commands.add_parser("slides", help="a deck of slides for each notebook of a finished run")
    decks.add_argument("run", type=Path, help="folder of the run, runs/fast for example")
    decks.add_argument("out", type=Path, nargs="?", default=Path("build/slides"), help="default: build/slides")
    decks.add_argument("--env", choices=ENVIRONMENTS, default="game24", help="the world (default: game24)")
    grading = commands.add_parser(
        "grade", help="grades of handed-in notebooks as CSV", description=grade.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    grading.add_argument("folder", type=Path, help="notebooks, or a folder of them for each student")
    grading.add_argument("--csv", type=Path, required=True, metavar="OUT.csv")
    limit = "for one notebook, a quarter of it for a cell (default: 60)"
    grading.add_argument("--seconds", type=float, default=60, help=limit)
    for name in ("reader", "student", "instructor", "nbgrader", "grade"):
        commands.choices[name].add_argument(
            "--variant", type=int, default=0, metavar="SEED", help="other numbers, for an exam"
        )
    options = parser.parse_args(arguments)
    try:
        if options.command == "grade":
            rows = grade.grade(options.folder, options.csv, options.seconds, seed=options.variant)
            print(*grade.totals(rows), f"{len(rows)} notebooks graded: {options.csv}", sep="\n")
        elif options.command == "slides":
            n = slides.write_slides(options.run, options.out / options.env, options.env)
            print(f"{n} decks of slides: {options.out / options.env}")
        elif options.command == "nbgrader":
            print(f"{notebooks.write_nbgrader(options.out, options.variant)} assignments for nbgrader: {options.out}")
        else:
            n, kept = notebooks.write_copies(options.command, options.out, options.env, options.variant)
            print(f"{n} notebooks for the {options.command}: {options.out}")
            if kept:
                print(f"kept as they are, for they were changed: {', '.join(kept)}; delete one to get it fresh")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
