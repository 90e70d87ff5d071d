"""A reader of one world gets the cells of that world: in copies, in runs, and in JupyterLab (see test_browser.py)."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from bench import prose

from armap_lite.course import notebooks
from armap_lite.display.cells import for_world, source, world_style, worlds
from armap_lite.envs import ENVIRONMENTS
from armap_lite.trajectory import Task

BOOKS = {path.stem: notebook for path, notebook in notebooks.course()}


def cell(source: str, *tags: str, kind: str = "markdown") -> dict[str, Any]:
    return {"cell_type": kind, "metadata": {"tags": list(tags)} if tags else {}, "source": source}


def test_cells_of_other_worlds_are_dropped_and_the_world_is_the_default():
    parameters = cell('ENV = "game24"  # the environment\nPROFILE = "fast"', "parameters", kind="code")
    cells = [parameters, cell("all"), cell("a", "world:a"), cell("b", "world:b"), cell("a, b", "world:a", "world:b")]
    found = for_world({"cells": cells, "nbformat": 4}, "b")
    assert [one["source"] for one in found["cells"][1:]] == ["all", "b", "a, b"] and found["nbformat"] == 4
    assert found["cells"][0]["source"] == 'ENV = "b"  # the environment\nPROFILE = "fast"'
    assert parameters["source"].startswith('ENV = "game24"')
    labelled = cell('<b class="world-a world-b">A and B.</b> Both.', "world:a", "world:b")
    assert for_world({"cells": [labelled]}, "b")["cells"][0]["source"] == "Both."
    listed = {"cells": [{**parameters, "source": ['ENV = "game24"\n', "SEED = 0"]}]}
    assert for_world(listed, "b")["cells"][0]["source"] == 'ENV = "b"\nSEED = 0'


@pytest.mark.parametrize("name", BOOKS)
def test_a_label_says_the_worlds_of_a_cell_again_where_css_can_see_them(name: str):
    before: dict[str, Any] = cell("")
    for one in BOOKS[name]["cells"]:
        own = worlds(one)
        assert set(own) <= set(ENVIRONMENTS)
        label = re.match(r'<b class="([^"]*)">', one["source"])
        classes = label[1].split() if label else []
        if one["cell_type"] == "markdown":
            assert [f"world-{world}" for world in own] == [c for c in classes if c != "with-code"], one["source"]
        elif own:  # hidden together with the text above it
            assert worlds(before) == own and "with-code" in before["source"].partition(">")[0], one["source"]
        before = one


@pytest.mark.parametrize("name", BOOKS)
def test_no_cell_speaks_of_a_world_that_it_is_not_for(name: str):
    assert not [aside for one in BOOKS[name]["cells"] for aside in prose.asides(one)]


@pytest.mark.parametrize("name", BOOKS)
def test_each_notebook_hides_the_cells_of_other_worlds_first(name: str):
    code = [one["source"] for one in BOOKS[name]["cells"] if one["cell_type"] == "code"]
    tagged = any(map(worlds, BOOKS[name]["cells"]))
    assert tagged == any(line == "show_world(ENV)" for line in code[1].splitlines())


def test_the_style_names_the_readers_world_alone():
    style = world_style("webshop")
    assert style.count("world-webshop") == 2 and style.startswith("<style>")
    assert not any(f"world-{name}" in style for name in ENVIRONMENTS if name != "webshop")


@pytest.mark.parametrize("kind", ["student", "instructor"])
def test_copies_are_of_one_world(kind: str, tmp_path: Path):
    notebooks.write_copies(kind, tmp_path, "webshop")
    for path in tmp_path.glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert any('ENV = "webshop"' in one["source"] for one in cells)
        assert all("webshop" in (worlds(one) or ["webshop"]) for one in cells)


def test_source_code_is_folded_under_its_names():
    shown = source(for_world, Task.to_json).data
    assert shown.startswith("<details><summary>Source code of for_world, Record.to_json</summary>")
    assert shown.endswith("</details>") and "highlight" in shown and "notebook" in shown


@pytest.mark.parametrize("name", BOOKS)
def test_a_figure_is_the_last_thing_in_its_cell_or_it_would_not_be_shown(name: str):
    for one in BOOKS[name]["cells"]:
        if one["cell_type"] == "code" and "run.save_figure(" in one["source"]:
            *before, last = ast.parse(one["source"]).body
            assert isinstance(last, ast.Expr) and "save_figure" in ast.unparse(last)
            assert not any("save_figure" in ast.unparse(line) for line in before)


@pytest.mark.parametrize("name", BOOKS)
def test_what_is_for_one_world_does_nothing_in_others(name: str):
    """JupyterLab hides such a cell from readers of other worlds, but "Run All Cells" runs it."""
    for one in BOOKS[name]["cells"]:
        for line in ast.parse(one["source"]).body if one["cell_type"] == "code" and worlds(one) else ():
            guarded = isinstance(line, ast.If) and "ENV" in ast.unparse(line.test)
            harmless = isinstance(line, (ast.FunctionDef, ast.Import)) or ast.unparse(line).startswith("source(")
            assert guarded or harmless, ast.unparse(line)
