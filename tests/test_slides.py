"""Slides: a deck for each executed notebook, with its figures, without code or exercises, loading nothing."""

import base64
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from armap_lite.course.__main__ import main
from armap_lite.course.slides import Deck

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PNG = "iVBORw0KGgo="


def sized(width: int, height: int) -> str:
    """The start of a PNG of this size, in base64."""
    start = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return base64.b64encode(start).decode()


def slides(folder: Path, cells: list[nbformat.NotebookNode], name: str = "02_two") -> list[str]:
    """The slides of one notebook of these cells."""
    (folder / "run/game24/notebooks").mkdir(parents=True)
    nbformat.write(v4.new_notebook(cells=cells), folder / f"run/game24/notebooks/{name}.ipynb")
    assert main(["slides", str(folder / "run"), str(folder / "out")]) == 0
    page = (folder / f"out/game24/{name}.html").read_text(encoding="utf-8")
    return re.findall(r"<section[^>]*>(.*?)</section>", page, re.S)


def executed(path: Path) -> None:
    """A notebook as a run leaves it."""
    picture = v4.new_output("display_data", {"image/png": PNG}, metadata={"image/png": {"alt": 'two "bars"'}})
    table = v4.new_output("execute_result", {"text/markdown": "| mean |\n|---|\n| 0.5 |"}, execution_count=2)
    cells = [
        v4.new_markdown_cell(
            "# 01 · Environments\n\n- *Time:* 1\n- *What you need:* a laptop\n\n<script>alert(1)</script>\n\n$x^2$"
        ),
        v4.new_code_cell("secret = 1", outputs=[v4.new_output("stream", text="printed")]),
        v4.new_markdown_cell("## 1 · Tasks `<b>`\n\nSome text."),
        v4.new_code_cell("plot()", outputs=[picture, table]),
        v4.new_markdown_cell("The first of them:"),
        v4.new_code_cell("show()", outputs=[v4.new_output("stream", text="\n".join(f"<line {i}>" for i in range(40)))]),
        v4.new_code_cell("frame", outputs=[v4.new_output("execute_result", {"text/html": "<table><td>7</table>"})]),
        v4.new_markdown_cell("## Exercises\n\nFour."),
        v4.new_markdown_cell("### 01-1 solve me"),
    ]
    path.parent.mkdir(parents=True)
    nbformat.write(v4.new_notebook(cells=cells), path)


def test_a_deck_has_a_slide_for_each_text_with_its_figures_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture):
    executed(tmp_path / "run/webshop/notebooks/01_environments.ipynb")
    command = ["slides", str(tmp_path / "run"), str(tmp_path / "out"), "--env", "webshop"]
    assert main(command) == 0 and "1 decks of slides" in capsys.readouterr().out
    page = (tmp_path / "out/webshop/01_environments.html").read_text(encoding="utf-8")
    first, second, third, fourth, fifth, sixth = re.findall(r"<section[^>]*>(.*?)</section>", page, re.S)
    assert (
        "01 · Environments" in first and "<math" in first and "<script>alert" not in first and "a laptop" not in first
    )
    assert f"data:image/png;base64,{PNG}" in second and 'alt="two &quot;bars&quot;"' in second
    assert "Some text." in second and "<td>0.5" in third and "The first of them:" in fourth
    lines = [re.findall(r"&lt;line (\d+)&gt;", slide) for slide in (third, fourth, fifth, sixth)]
    assert lines == [[], *([str(i) for i in some] for some in (range(18), range(18, 36), range(36, 40)))]
    assert "<td>7" in sixth
    rest = (third, fourth, fifth, sixth)
    assert all("<header>1 · Tasks &lt;b&gt;</header>" in slide for slide in rest) and "<header" not in second
    assert not any(word in page for word in ("secret", "printed", "plot()", "solve me"))
    assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|url\(""", page)


@pytest.mark.parametrize(("lines", "number", "small"), [(18, 1, False), (20, 1, True), (22, 1, True), (30, 2, False)])
def test_what_nearly_fits_on_a_slide_stays_together_in_small_print(lines: int, number: int, small: bool):
    printed = v4.new_output("stream", text="\n".join(f"line {i}" for i in range(lines)))
    cells = [v4.new_markdown_cell("## 1 · A pair\n\nHere:"), v4.new_code_cell("print()", outputs=[printed])]
    found = [slide for slide in Deck(v4.new_notebook(cells=cells)).slides if "<pre>" in slide]
    assert len(found) == number and [" small" in slide[:40] for slide in found] == [small] * number


def test_a_cell_s_slide_type_shows_what_it_printed_or_leaves_it_out(tmp_path: Path):
    def printing(text: str, kind: str) -> nbformat.NotebookNode:
        outputs = [v4.new_output("stream", text=part) for part in text.partition(" ")]
        return v4.new_code_cell("print()", outputs=outputs, metadata={"slideshow": {"slide_type": kind}})

    aside = v4.new_markdown_cell("about the code", metadata={"slideshow": {"slide_type": "skip"}})
    long = v4.new_markdown_cell("word " * 61)
    picture = v4.new_code_cell("plot()", outputs=[v4.new_output("display_data", {"image/png": PNG})])
    cells = [
        v4.new_markdown_cell("# 02"),
        printing("shown at once", "fragment"),
        aside,
        printing("left out", "-"),
        long,
        picture,
    ]
    first, second = slides(tmp_path, cells)
    assert "<pre>shown at once</pre>" in first and "word" in second and "<img" in second
    assert not any(text in first + second for text in ("left out", "about the code"))


def test_a_slide_holds_what_fits_and_an_output_stands_with_the_text_that_announces_it(tmp_path: Path):
    def cell(kind: str, lines: int) -> nbformat.NotebookNode:
        outputs = [v4.new_output("stream", text="\n".join(["line"] * lines))]
        return v4.new_code_cell("p", outputs=outputs, metadata={"slideshow": {"slide_type": kind}})

    def picture(width: int, height: int) -> nbformat.NotebookNode:
        return v4.new_code_cell("f", outputs=[v4.new_output("display_data", {"image/png": sized(width, height)})])

    long = "word " * 60
    cells = [
        v4.new_markdown_cell("# 02\n\n" + long),
        cell("fragment", 4),
        v4.new_markdown_cell("It announces a picture."),
        picture(1000, 400),
        v4.new_markdown_cell("## 2 · Beside\n\n" + long[:150]),
        picture(800, 700),
        v4.new_markdown_cell("After it."),
        cell("subslide", 3),
    ]
    first, second, third, fourth, fifth = slides(tmp_path, cells)
    assert "line" in first and "announces" not in first and "announces" in second and "<img" in second
    beside = '<div class="text">'
    assert beside in third and beside not in second and "After it" not in third
    assert "After it" in fourth and "line" in fifth


def test_a_heading_is_never_alone_and_a_short_aside_on_a_world_joins_the_text_before_it(tmp_path: Path):
    aside = v4.new_markdown_cell("Short, and of one world.", metadata={"tags": ["world:game24"]})
    long = v4.new_code_cell("p", outputs=[v4.new_output("stream", text="\n".join(["x" * 100] * 12))])
    texts = ["# 03", "Before.\n\n## 2 · Next", "Its text:"]
    cells = [*map(v4.new_markdown_cell, texts), long, v4.new_markdown_cell("After."), aside]
    first, second, third = slides(tmp_path, cells)
    assert "Before." in first and "2 · Next" in second and "Its text:" in second
    assert (second.count("x" * 100), third.count("x" * 100)) == (9, 3)
    assert "After." in third and "Short, and of one world." in third


def test_a_long_printed_line_loses_its_middle(tmp_path: Path):
    line = "first " + "word " * 90 + "last"
    [slide] = slides(
        tmp_path,
        [v4.new_markdown_cell("# 03\n\nPrinted:"), v4.new_code_cell("p", outputs=[v4.new_output("stream", text=line)])],
    )
    [shown] = re.findall("<pre>(.*?)</pre>", slide)
    assert shown.startswith("first word") and " … " in shown and shown.endswith("last") and len(shown) <= 252


def test_what_a_text_announces_is_shown_though_a_text_on_one_world_stands_between(tmp_path: Path):
    cells = [
        v4.new_markdown_cell("# 05\n\nIts order:"),
        v4.new_markdown_cell("In this world, all.", metadata={"tags": ["world:game24"]}),
        v4.new_code_cell("p", outputs=[v4.new_output("stream", text="1, 2, 3")]),
    ]
    (tmp_path / "run/game24/notebooks").mkdir(parents=True)
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "run/game24/notebooks/05_five.ipynb")
    assert main(["slides", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    assert "<pre>1, 2, 3</pre>" in (tmp_path / "out/game24/05_five.html").read_text(encoding="utf-8")


def test_the_lecture_has_the_slides_of_the_cells_that_are_tagged(tmp_path: Path):
    rows = "".join(f"<tr><td>row {i}</td></tr>" for i in range(40))
    table = v4.new_output("execute_result", {"text/html": f"<table>{rows}</table>"})
    lecture = {"tags": ["lecture"]}
    (tmp_path / "run/game24/notebooks").mkdir(parents=True)
    for name in ("00_a", "01_b"):
        cells = [
            v4.new_markdown_cell(f"# Title {name}\n\nAsks.\n\nWords.", metadata=lecture if name == "00_a" else {}),
            v4.new_markdown_cell(f"## 1 · Of {name}\n\nWords.", metadata=lecture),
            v4.new_markdown_cell("## 2 · Not this\n\nWords."),
            v4.new_code_cell("t", outputs=[table], metadata=lecture if name == "01_b" else {}),
        ]
        nbformat.write(v4.new_notebook(cells=cells), tmp_path / f"run/game24/notebooks/{name}.ipynb")
    assert main(["slides", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/game24/lecture.html").read_text(encoding="utf-8")
    slides = re.findall(r"<section[^>]*>(.*?)</section>", page, re.S)
    assert ["00 · Of 00_a" in slides[1], "01 · Of 01_b" in slides[2], "01 · Not this" in slides[3]] == [True] * 3
    parts = "<li>Title 00_a</li><li>Title 01_b</li>"  # the lecture's title is not that of a notebook
    assert "<h1>ARMAP" in slides[0] and "<p>Asks.</p>" in slides[0] and "Words" not in slides[0] and parts in slides[0]
    assert (
        len(slides) == 4 and slides[3].count("<tr") == 16 and "… 25 more rows" in slides[3] and "</table>" in slides[3]
    )


def test_without_a_finished_run_the_error_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["slides", str(tmp_path), str(tmp_path / "out")]) == 1
    assert "first finish a run: make reproduce ENV=game24" in capsys.readouterr().err


def test_a_heading_of_a_section_left_out_is_shown_once_and_not_alone(tmp_path: Path):
    long = v4.new_output("stream", text="\n".join(["x" * 80] * 12))
    tags = {"tags": ["lecture"]}
    cells = [
        v4.new_markdown_cell("## 3 · Left out\n\nWords."),
        v4.new_markdown_cell("word " * 90, metadata=tags),
        v4.new_code_cell("p", outputs=[long], metadata=tags | {"slideshow": {"slide_type": "fragment"}}),
    ]
    (tmp_path / "run/game24/notebooks").mkdir(parents=True)
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "run/game24/notebooks/03_three.ipynb")
    assert main(["slides", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/game24/lecture.html").read_text(encoding="utf-8")
    first, second = re.findall(r"<section[^>]*>(.*?)</section>", page, re.S)
    assert "<h2>03 · Left out</h2>" in first and "word word" in first
    assert "<header>03 · Left out</header>" in second and "xxx" in second


@pytest.mark.parametrize(("letters", "kept"), [(10, 16), (150, 6), (2000, 3)])
def test_a_table_shows_as_many_rows_as_fit_where_their_cells_wrap(tmp_path: Path, letters: int, kept: int):
    rows = "".join(f"<tr><td>{'word ' * (letters // 5)}</td></tr>" for _ in range(20))
    table = v4.new_output("display_data", {"text/html": f"<table>{rows}</table>"})
    cells = [v4.new_markdown_cell("# Title\n\nWords."), v4.new_code_cell("t", outputs=[table])]
    (tmp_path / "run/game24/notebooks").mkdir(parents=True)
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "run/game24/notebooks/00_a.ipynb")
    assert main(["slides", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/game24/00_a.html").read_text(encoding="utf-8")
    assert page.count("<tr") == kept and f"… {20 - (kept - 1)} more rows" in page


def test_a_slide_may_have_a_shorter_text_and_the_notebook_s_own_is_the_speaker_s(tmp_path: Path):
    short = {"slideshow": {"text": "- one point\n\n## 2 · Next\n\n- another"}}
    cells = [
        v4.new_markdown_cell("# 02 · Two\n\nWhat this is."),
        v4.new_markdown_cell(
            "A long first.\n\n## 2 · Next\n\nA long second, <script>alert(1)</script>", metadata=short
        ),
    ]
    first, second = slides(tmp_path, cells)
    (shown, notes), (shown_next, notes_next) = (slide.split("<aside>") for slide in (first, second))
    assert "What this is." in shown and "one point" in shown and "long" not in shown and "another" not in shown
    assert "What this is." in notes and "A long first." in notes and "second" not in notes
    assert "2 · Next" in shown_next and "another" in shown_next and "long" not in shown_next
    assert "A long second" in notes_next and "one point" not in notes_next and "<script>alert" not in notes_next


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_the_shorter_text_of_a_slide_has_its_cell_s_headings_and_announces_what_it_announces(path: Path):
    for cell in nbformat.read(path, as_version=4).cells:
        short, source = cell.metadata.get("slideshow", {}).get("text", cell.source), cell.source
        headings = [re.findall("^#+ .*", text, re.M) for text in (short, source)]
        assert headings[0] == headings[1] and len(short) <= len(source), short
        assert short.rstrip().endswith(":") == source.rstrip().endswith(":"), short
