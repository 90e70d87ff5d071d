"""One self-contained page: the result tables, the figures, and every executed notebook."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

from armap_lite import evaluate, synthesize
from armap_lite.llms.answers import invalid_action_summary
from armap_lite.storage.store import write_atomic

STYLE = """
body { font: 17px/1.55 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 15px; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ccc; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; } figure { margin: 1.5rem 0; } figcaption { color: #555; font-size: 15px; }
details { border: 1px solid #ccc; border-radius: 6px; margin: .6rem 0; padding: .4rem .8rem; }
iframe { width: 100%; height: 80vh; border: 0; } code { background: #f2f2f2; padding: 0 .25em; }
"""
ABOUT = """
<p>ARMAP trains a small <i>reward model</i> without labels, and uses it to choose among the attempts of a language
model. Each row below is one way to answer, all on the same test tasks. The <i>mean</i> is the true score, from 0 to 1,
that a judge gave at the very end, with its 95 % interval over tasks.</p>
<ul><li>sampling, greedy: one attempt, no reward model;</li>
<li>best_of_n, reflexion, mcts: several attempts, and the reward model chooses;</li>
<li>random_best_of_n: a random one of Best-of-N's attempts (the floor); oracle_best_of_n: the best of them (the
ceiling). Both show what those attempts cost.</li></ul>
<p>Seconds are for all tasks of a row together; planners share caches, so compare tokens, steps and calls instead.</p>
"""
FORMULAS = """
<p>Formulas in the notebooks below appear as source; <code>site/index.html</code>, beside this file, shows them set.</p>
"""
PAGE_STYLE = ".jp-RenderedMarkdown pre { font-family: var(--jp-code-font-family); }"  # source code shown as an output
# nbconvert's page without what it would load from elsewhere or run: scripts for widgets, formulas and diagrams
OFFLINE = "{% extends 'lab/index.html.j2' %}" + "".join(
    f"{{% block {name} %}}{{% endblock %}}"
    for name in ("html_head_js", "html_head_js_mathjax", "html_head_js_mermaidjs", "jupyter_widgets")
)


def write_report(out: Path) -> Path:
    """Write `report.html` from `results.json`, the figures and the executed notebooks under `out`; returns its path."""
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    title = html.escape(out.resolve().name)
    parts = [f"<h1>ARMAP, measured: {title}</h1>{ABOUT}{FORMULAS}"]
    for env in dict.fromkeys(row["env"] for row in results["rows"]):
        parts += [
            f"<h2>{html.escape(env)}</h2>",
            *environment_parts(out, env, results),
            "<h3>The notebooks, executed</h3>",
        ]
        parts += map(notebook_html, sorted((out / env / "notebooks").glob("*.ipynb")))
    parts.append(f"<h2>Made with</h2>{versions_list(results)}")
    head = f"<meta charset='utf-8'><title>armap-lite: {title}</title><style>{STYLE}</style>"
    page_text = f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>"
    write_atomic(out / "report.html", page_text)
    return out / "report.html"


def environment_parts(out: Path, env: str, results: dict[str, Any]) -> list[str]:
    """What was found in `env`, as HTML: how, the table, the reward model's pair accuracy, the figures."""
    rows = [row for row in results["rows"] if row["env"] == env]
    first = rows[0]
    what = f"split {first['split']}, score: {first['metric']}, profile {first['profile']}, seed {first['seed']}"
    who = f"policy {first['policy']}, reward model on {first['reward_model']}, device {first['device']}"
    size, n = f"{first['n']} tasks, ", " A small sample: too few tasks to rank planners." if first["n"] < 100 else ""
    parts = [f"<p>{html.escape(f'{size}{what}; {who}.{n}')}</p>", markdown_table(evaluate.table(rows))]
    for quality in (r for r in results["reward_model"] if r["env"] == env):
        interval = f"{quality['pair_accuracy']:.3f} [{quality['ci_low']:.3f}, {quality['ci_high']:.3f}]"
        size = f"{quality['n_pairs']} pairs of {quality['n_tasks']} tasks never trained on"
        before = "" if quality["baseline"] is None else f"; before training {quality['baseline']:.3f}"
        learned, scored = (f"{quality[key]:.0%}" for key in ("shortened", "shortened_planned"))
        read = "" if quality["baseline"] is None else f"{learned} of the trajectories it learned from and "
        cut = f"{read}{scored} of those it scored lost their middle"
        parts.append(f"<p>Pair accuracy of the reward model: <b>{interval}</b> ({size}{before}); {cut}.</p>")
    parts += hindsight_counts(out / env / "pairs.jsonl")
    answers = out / env / "answers.json"
    if answers.is_file():
        summary = invalid_action_summary(json.loads(answers.read_text(encoding="utf-8")))
        parts.append(f"<p>The policy's server: {summary}.</p>")
    return parts + [figure(picture) for picture in sorted((out / env / "figures").glob("*.png"))]


def hindsight_counts(pairs: Path) -> list[str]:
    """What a data LLM that looked back at trajectories made of them, as HTML; nothing where code looked back."""
    counts = synthesize.summary(pairs) if pairs.is_file() else {}
    if not counts or "looked back at" not in counts:
        return []
    code = {name: counts[f"code {name}"] for name in ("agrees", "contradicts", "cannot read it")}
    rows = {
        "trajectories read (shortened)": f"{counts['looked back at']} ({counts['shortened']})",
        "instruction fulfilled / refined": f"{counts['fulfilled as asked']} / {counts['refined']}",
        "answers malformed / refused; gave up": f"{counts['malformed']} / {counts['refused']}; {counts['gave up']}",
        "pairs kept": str(counts["pairs"]),
    }
    if total := sum(code.values()):
        rows["code agrees with the text"] = f"{code['agrees']} of {total} ({code['agrees'] / total:.0%})"
        rows["code contradicts / cannot read it"] = f"{code['contradicts']} / {code['cannot read it']}"
    else:
        passed, wrong, open_ = (counts[f"blind check {name}"] for name in ("passed", "wrong", "undecided"))
        rows["blind check passed / wrong / undecided"] = f"{passed} / {wrong} / {open_}"
    table = "\n".join(["| stage 2 | count |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    return ["<p>A data LLM looked back at the trajectories:</p>", markdown_table(table)]


def versions_list(results: dict[str, Any]) -> str:
    """The versions behind `results` as an HTML list."""
    lines = (f"<li>{html.escape(k)}: {html.escape(str(v))}</li>" for k, v in results["versions"].items())
    return f"<ul>{''.join(lines)}</ul>"


def figure(picture: Path) -> str:
    """`picture` as an inline figure; the text file beside it says in words what is to be seen."""
    beside = picture.with_suffix(".txt")
    text = html.escape(
        beside.read_text(encoding="utf-8") if beside.is_file() else picture.stem.replace("_", " "), quote=True
    )
    data = base64.b64encode(picture.read_bytes()).decode()
    said = f"<b>{html.escape(picture.stem.replace('_', ' '))}.</b> {text}"
    return f"<figure><img src='data:image/png;base64,{data}' alt='{text}'><figcaption>{said}</figcaption></figure>"


def strip_widgets(notebook: Path) -> Any:
    """An executed notebook (nbformat's) without its widgets, which need a kernel; the pictures beside them stay."""
    from papermill.iorw import load_notebook_node

    node = load_notebook_node(str(notebook))
    node.metadata.pop("widgets", None)
    for cell in node.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                o for o in cell.outputs if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})
            ]
    return node


def notebook_html(notebook: Path) -> str:
    """An executed notebook, folded, in a frame that runs no script."""
    from nbconvert import HTMLExporter

    resources = {"metadata": {"name": notebook.stem}}
    body, _ = HTMLExporter(raw_template=OFFLINE).from_notebook_node(strip_widgets(notebook), resources)
    body = body.replace("</head>", f"<style>{PAGE_STYLE}</style></head>", 1)
    frame = f'<iframe sandbox srcdoc="{html.escape(body)}"></iframe>'
    return f"<details><summary>{html.escape(notebook.stem)}</summary>{frame}</details>"


def markdown_table(table: str) -> str:
    """A Markdown table as HTML."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    cells = [[html.escape(cell).replace("`", "") for cell in line] for line in (lines[0], *lines[2:])]
    head, *body = (
        "".join(f"<{tag}>{cell}</{tag}>" for cell in row) for tag, row in zip(["th"] + ["td"] * len(cells), cells)
    )
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in body)}</table>"
