"""The static site: results and executed notebooks, read from disk, with no script of theirs and nothing remote."""

import base64
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup, FeatureNotFound
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_reproduce import FINDINGS, HOSTILE, PIXEL

from armap_lite.display import pages
from armap_lite.pipeline.commands import main

ELSEWHERE = "https://elsewhere.invalid/"
TEXT = r"""# 00 · The first

Here $R(x, h) = w \cdot z$; a broken one is $\frac{1}{$. The shop takes \$3 or \$4. Next: [the second](01_second.ipynb).

$$\hat h = \arg\max_{h \in \{h_1, \dots, h_n\}} R(x, h)$$

<details><summary>Hint</summary>

Look *twice*.

</details>
"""
LIVE = f"""<style>@import url({ELSEWHERE}s.css);</style><table class="dataframe"><tr><td>a cup {HOSTILE}</td>
<td><img src="{ELSEWHERE}p.png" onerror="alert(1)"><a href="javascript:alert(1)">buy</a></td></tr></table>
<div style="background: url({ELSEWHERE}b.png)">kept</div><svg onload="alert(1)"></svg>
<iframe src="{ELSEWHERE}"></iframe>"""


def executed(*outputs: Any) -> nbformat.NotebookNode:
    return new_code_cell("show(product)", execution_count=1, outputs=list(outputs))


def shown(data: dict[str, Any], **metadata: Any) -> nbformat.NotebookNode:
    return new_output("display_data", data=data, metadata=metadata)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site that the real command makes of a run with two notebooks."""
    out = tmp_path_factory.mktemp("runs") / "run <i>one"
    for folder in ("game24/figures", "game24/notebooks", "site"):
        (out / folder).mkdir(parents=True)
    (out / "site" / "old.html").write_text("of a run before", encoding="utf-8")
    (out / "game24/evaluation.json").write_text(json.dumps(FINDINGS), encoding="utf-8")
    (out / "game24/figures/curve.png").write_bytes(PIXEL)
    (out / "game24/figures/curve.txt").write_text(f"A curve' onload='alert(1)\n```\n{HOSTILE}", encoding="utf-8")
    pixel = base64.b64encode(PIXEL).decode()
    first = [
        new_markdown_cell(TEXT),
        executed(new_output("stream", name="stdout", text=f"\x1b[31mred\x1b[0m {HOSTILE}")),
        executed(shown({"text/html": LIVE, "text/plain": "a table"})),
        executed(shown({"text/markdown": f"| planner |\n| --- |\n| {HOSTILE} ![p]({ELSEWHERE}q.png) |"})),
        executed(shown({"application/javascript": "alert(2)"})),
        executed(shown({"image/png": pixel, "text/plain": "f"}, **{"image/png": {"alt": f"Dots, {HOSTILE}"}})),
        executed(shown({"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/plain": "WIDGET"})),
    ]
    state = {"state": {"m": {"model_name": "X", "model_module": "x"}}, "version_major": 2, "version_minor": 0}
    second = [new_markdown_cell("# 01 · The second"), executed(new_output("stream", text="a quaggafish swims\n"))]
    for stem, cells in (("00_first", first), ("01_second", second)):
        book = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
        book.metadata["language_info"] = {"name": "python"}
        book.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": state}
        nbformat.write(book, out / f"game24/notebooks/{stem}.ipynb")
    assert main(["report", str(out)]) == 0
    return out / "site"


def soup(file: Path) -> Any:
    return BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")


def test_every_page_is_in_every_sidebar_and_no_link_is_broken(built: Path):
    pages = ["index.html", "game24/results.html", "game24/00_first.html", "game24/01_second.html"]
    for name in [*pages, "search.html"]:
        page = soup(built / name)
        links = {link.get_text(): link["href"] for link in page.select(".sidebar li a")}
        assert list(links) == ["Results", "00 · The first", "01 · The second"], name
        for tag, attribute in (("a", "href"), ("img", "src"), ("script", "src"), ("link", "href")):
            for target in (found[attribute] for found in page.find_all(tag, **{attribute: True})):
                if not target.startswith(("#", "https://", "data:image/")):
                    assert (built / name).parent.joinpath(re.sub(r"[?#].*", "", target)).resolve().is_file(), target
    assert soup(built / pages[2]).select('article a[href="01_second.html"]')
    assert sorted(file.name for file in built.parent.glob(".site.*")) == []  # nothing of the work is left
    assert not (built / "old.html").exists()


def test_the_results_and_figures_of_the_report_are_there(built: Path):
    first, results = soup(built / "index.html"), soup(built / "game24/results.html")
    for page in (first, results):
        assert "0.250 [0.000, 1.000]" in page.select_one("article table").get_text(" ")
    assert "run <i>one" in first.select_one("article").get_text()
    assert "0.875 [0.750, 1.000]" in results.select_one("article").get_text()
    [figure] = results.select("article figure img")
    assert figure["src"].startswith("data:image/png") and figure["alt"].startswith("A curve' onload='alert(1)")
    assert HOSTILE in figure["alt"] and set(figure.attrs) == {"src", "alt"}


def test_formulas_pictures_and_folded_answers_are_shown_without_a_script(built: Path):
    article = soup(built / "game24/00_first.html").select_one("article")
    inline, display = article.find_all("math")
    assert inline["display"] == "inline" and display["display"] == "block"
    assert "\\" not in display.get_text() and "arg" in display.get_text()
    assert article.find("code", string=r"\frac{1}{") and "$3 or $4" in article.get_text()
    assert article.select_one("details em").get_text() == "twice"
    [picture] = article.select("img[src]")
    assert picture["alt"] == f"Dots, {HOSTILE}"
    assert "WIDGET" not in article.get_text()


def test_a_page_shows_the_parameters_that_ran_and_not_their_defaults_as_well(tmp_path: Path):
    default = new_code_cell('ENV = "game24"', metadata={"tags": ["parameters"]})
    ran = new_code_cell('ENV = "webshop"', metadata={"tags": ["injected-parameters"]})
    for cells, shown in (([default, ran], ["webshop"]), ([default], ["game24"])):
        nbformat.write(new_notebook(cells=cells), tmp_path / "one.ipynb")
        page = BeautifulSoup(pages.notebook(tmp_path / "one.ipynb")["html"], "html.parser").get_text()
        assert [name for name in ("game24", "webshop") if name in page] == shown


def test_a_hostile_title_stays_text_and_nothing_comes_from_elsewhere(built: Path):
    article = soup(built / "game24/00_first.html").select_one("article")
    assert not article.find_all(["script", "style", "iframe", "svg", "object", "embed", "form"])
    assert article.get_text().count(HOSTILE) == 3  # printed, in HTML, in Markdown
    assert "kept" in article.get_text() and article.select_one("table.dataframe")
    for page in built.rglob("*.html"):
        whole = soup(page)
        for tag in whole.find_all(True):
            assert not [name for name in tag.attrs if name.startswith("on")], tag
            assert not str(tag.get("href", "")).startswith("javascript:"), tag
            loads = [tag.get("src"), tag.get("srcset"), tag.get("data"), tag.get("poster"), tag.get("style")]
            loads += [tag.get("href")] * (tag.name == "link")
            assert not [where for where in loads if re.search(r"(?:https?:)?//", where or "")], tag
        assert "alert(" not in "".join(script.get_text() for script in whole.find_all("script"))
    for sheet in [*built.rglob("*.css"), *built.rglob("*.html")]:
        assert not re.search(
            r"@import|url\(\s*['\"]?(?:https?:)?//",
            re.sub(r"(?s)<article.*</article>", "", sheet.read_text(encoding="utf-8")),
        )


@pytest.mark.parametrize(
    "source",
    [
        "<math><mtext><table><mglyph><style><!--</style><img src=x onerror=alert(1)>",
        "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
        "<svg></p><style><a id='</style><img src=1 onerror=alert(1)>'>",
        "<img src='data:text/html,<script>alert(1)</script>'><a href=' data:text/html,x'>a</a>",
        "<a href='java\nscript:alert(1)' onclick='alert(1)' style='background: url(//x)'>a</a>",
        "<noscript><p title='</noscript><img src=x onerror=alert(1)>'></noscript><base href='//x'>",
        "<math href='javascript:alert(1)'><mi xlink:href='javascript:alert(1)'>x</mi></math><iframe srcdoc=x></iframe>",
    ],
)
def test_hostile_html_keeps_nothing_that_runs_or_loads(source: str):
    clean = pages.sanitize(source)
    assert pages.sanitize(clean) == clean
    for parser in ("html.parser", "html5lib", "lxml"):
        with contextlib.suppress(FeatureNotFound):
            for tag in BeautifulSoup(clean, parser).find_all(True):
                assert tag.name in {*pages.TAGS, "html", "head", "body"}
                assert not {"onerror", "onclick", "style", "srcdoc", "xlink:href"} & tag.attrs.keys()
                assert tag.get("src", "data:image/").startswith("data:image/")
                assert not re.match(r"\s*(java\s*script|data):", tag.get("href", ""))


def test_the_search_index_knows_what_a_notebook_printed_and_a_table_says(built: Path):
    index = json.loads((built / "search_index.js").read_text(encoding="utf-8").removeprefix("const PAGES = ")[:-2])
    assert [page["url"] for page in index if "quaggafish" in page["text"]] == ["game24/01_second.html"]
    assert {page["url"] for page in index if "best_of_n" in page["text"]} == {"index.html", "game24/results.html"}


@pytest.fixture
def page(built: Path) -> Iterator[Any]:
    """A page of a browser; at the end, that it asked for files alone and found nothing wrong."""
    import test_browser  # skips where there is no playwright

    if test_browser.chromium() is None:
        pytest.skip("no Chromium found: install one, or name it in ARMAP_LITE_CHROMIUM")
    asked: list[str] = []
    wrong: list[str] = []
    with test_browser.sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=test_browser.chromium(), args=["--no-sandbox"], timeout=test_browser.PATIENCE
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(test_browser.PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        yield page
        browser.close()
    assert asked and [url for url in asked if not url.startswith(("file://", "data:"))] == []
    assert wrong == []


def test_it_is_read_and_searched_from_disk_in_a_browser(built: Path, page: Any):
    page.goto((built / "index.html").as_uri())
    page.locator(".sidebar").get_by_text("00 · The first").click()
    assert page.locator("math").first.bounding_box()["height"] > 5
    assert page.evaluate("[...document.images].every(one => !one.src || one.naturalWidth > 0)")
    page.get_by_placeholder("Search").fill("quaggafish")
    page.get_by_placeholder("Search").press("Enter")
    page.locator("#search-results a").first.click()
    page.get_by_text("a quaggafish swims").wait_for()
    assert page.url.split("?")[0].split("#")[0].endswith("game24/01_second.html")
