"""Writes `report.html`, one self-contained page, and `site/`, the same content as pages with a sidebar and a search."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from armap_lite import synthesize
from armap_lite.display import pages
from armap_lite.display.canvas import png_uri
from armap_lite.display.tables import results_table
from armap_lite.llms.answers import invalid_action_summary
from armap_lite.storage import folders
from armap_lite.storage.store import read_json, write_atomic


def write_report(out: Path) -> Path:
    """Write `report.html` and `site/` from `results.json`, figures and executed notebooks under `out`.

    Returns the path of the report. Where rendering fails, the previous report and site stay.
    """
    results = read_json(out / "results.json", "write it again with 'python -m armap_lite report'")
    names = dict.fromkeys(row["env"] for row in results["rows"])
    run = {
        "name": out.resolve().name,
        "rows": results["rows"],
        "versions": results["versions"],
        "environments": [describe(out, env, results) for env in names],
    }
    notebooks = {env: [*map(pages.notebook, sorted((out / env / "notebooks").glob("*.ipynb")))] for env in names}
    style = (pages.TEMPLATES / "style.css").read_text(encoding="utf-8")
    with folders.whole(out / "site") as part:
        _write_site(part, run, notebooks)
        write_atomic(out / "report.html", pages.render("report.html", run=run, style=style, notebooks=notebooks))
    return out / "report.html"


def _write_site(folder: Path, run: dict[str, Any], notebooks: dict[str, list[dict[str, str]]]) -> None:
    """Write the site: results of all environments, and for each a page of results and its notebooks."""
    contents: list[tuple[str, str, str]] = [("index.html", "Results", pages.render("index.html", run=run))]
    for environment in run["environments"]:
        env = environment["name"]
        results = pages.render("environment.html", environment=environment)
        contents.append((f"{env}/results.html", "Results", f"<h1>Results: {env}</h1>{results}"))
        contents += [(f"{env}/{book['name']}.html", book["title"], book["html"]) for book in notebooks[env]]
    index = [{"url": path, "title": title, "text": pages.plain_text(body)} for path, title, body in contents]
    contents.append(("search.html", "Search", pages.render("search.html")))
    for path, title, body in contents:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        root = "../" * path.count("/")
        page = pages.render("site.html", run=run, notebooks=notebooks, path=path, root=root, title=title, body=body)
        (folder / path).write_text(page, encoding="utf-8")
    for name in ("style.css", "search.js"):
        shutil.copyfile(pages.TEMPLATES / name, folder / name)
    (folder / "search_index.js").write_text(f"const PAGES = {json.dumps(index)};\n", encoding="utf-8")


def describe(out: Path, env: str, results: dict[str, Any]) -> dict[str, Any]:
    """What the template `environment.html` shows of `env`: setting, result table, reward model, counters, figures."""
    rows = [row for row in results["rows"] if row["env"] == env]
    answers = out / env / "answers.json"
    counts = read_json(answers, "delete it, and counting starts anew") if answers.is_file() else None
    return {
        "name": env,
        "setting": rows[0],
        "table": pages.sanitize(pages.markdown(results_table(rows))),
        "differences": [row for row in results["differences"] if row["env"] == env],
        "reward_models": [row for row in results["reward_model"] if row["env"] == env],
        "hindsight": hindsight_counts(out / env / "pairs.jsonl"),
        "invalid_actions": invalid_action_summary(counts) if counts else "",
        "figures": [_figure(path) for path in sorted((out / env / "figures").glob("*.png"))],
    }


def _figure(path: Path) -> dict[str, str]:
    """The PNG `path`, with the alternative text that lies beside it."""
    title, text = path.stem.replace("_", " "), path.with_suffix(".txt")
    alt = text.read_text(encoding="utf-8") if text.is_file() else title
    return {"title": title, "alt": alt, "uri": png_uri(path.read_bytes())}


def hindsight_counts(pairs: Path) -> Mapping[str, int]:
    """The counters of stage 2 where a data LLM read the trajectories; empty where code read them."""
    counts = synthesize.summary(pairs) if pairs.is_file() else Counter()
    return counts if "looked back at" in counts else Counter()
