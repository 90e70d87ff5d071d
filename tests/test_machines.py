"""Other machines: a locale that is not UTF-8, no POSIX modules, a read-only cache, kernels of other environments."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from armap_lite.envs.webshop.builtin import catalogue
from armap_lite.pipeline import reproduce
from armap_lite.storage import assets, store

ROOT = Path(__file__).parents[1]
SOURCES = [p for p in sorted(ROOT.rglob("*.py")) if p.relative_to(ROOT).parts[0] in ("armap_lite", "tests")]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


# Encodings


def code_of(path: Path) -> Iterator[str]:
    """The Python in `path`, a module or a notebook; without IPython's magic lines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield text
        return
    for cell in json.loads(text)["cells"]:
        if cell["cell_type"] == "code":
            yield "".join(line for line in cell["source"] if not line.lstrip().startswith(("%", "!")))


def guesses_an_encoding(call: ast.Call) -> bool:
    """Whether `call` reads or writes text in the encoding of the locale: ruff sees it only where it knows the type."""
    given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
    if True in (given.get("text"), given.get("universal_newlines")):
        return "encoding" not in given
    name, method = getattr(call.func, "id", getattr(call.func, "attr", "")), isinstance(call.func, ast.Attribute)
    if name in ("read_text", "write_text") and method:
        return "encoding" not in given and len(call.args) <= (name == "write_text")
    if name in ("open", "fdopen") and not (method and getattr(call.func.value, "id", "") in ("Image", "archive")):
        modes = [a.value for a in call.args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        return "encoding" not in given and not any("b" in mode for mode in modes)
    return False


@pytest.mark.parametrize(
    ("source", "guessed"),
    [
        ("p.read_text()", True),
        ("p().write_text(x)", True),
        ("open(p, 'w')", True),
        ("p.open()", True),
        ("run(c, text=True)", True),
        ("p.read_text('utf-8')", False),
        ("p.write_text(x, encoding='utf-8')", False),
        ("open(p, 'rb')", False),
        ("run(c, text=True, encoding='utf-8')", False),
    ],
)
def test_a_guessed_encoding_is_found(source: str, guessed: bool):
    assert guesses_an_encoding(ast.parse(source, mode="eval").body) == guessed


@pytest.mark.parametrize("path", [*SOURCES, *NOTEBOOKS], ids=lambda path: path.name)
def test_every_text_file_is_opened_in_a_stated_encoding(path: Path):
    for source in code_of(path):
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        assert not [ast.unparse(call) for call in calls if guesses_an_encoding(call)]


@pytest.mark.slow
def test_commands_work_in_a_locale_without_utf_8(tmp_path: Path):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "armap_lite.course", "student", str(tmp_path / "Übung")]
    ran = subprocess.run(command, env=os.environ | plain, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    copied = (tmp_path / "Übung" / NOTEBOOKS[0].name).read_text(encoding="utf-8")
    assert not copied.isascii()
    code = (
        "import sys; from armap_lite.storage import store; store.escape_unencodable_output(); "
        "print('\\u03bb', sys.stdout.encoding)"
    )
    shown = subprocess.run([sys.executable, "-c", code], env=os.environ | plain, capture_output=True, check=True).stdout
    assert shown.split() == [b"\\u03bb", b"ascii"]


# Systems


@pytest.mark.slow
def test_no_module_needs_posix(tmp_path: Path):
    """Windows has neither these modules nor these names; what is imported only when it is used is a test's own."""
    code = f"""
import importlib, os, pkgutil, signal, sys
POSIX = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")

class Windows:
    @staticmethod
    def find_spec(name, path=None, target=None):
        \"\"\"Our own modules find no POSIX; other packages know what they do on Windows.\"\"\"
        at = sys._getframe(1)
        while at and "importlib" in at.f_code.co_filename:
            at = at.f_back
        if name in POSIX and "armap_lite" in at.f_globals.get("__name__", ""):
            raise ModuleNotFoundError(f"No module named {{name!r}}")

import filelock, torch, transformers
for name in POSIX:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Windows)
for module, name in ((signal, "SIGALRM"), (signal, "setitimer"), (os, "killpg"), (os, "setsid")):
    delattr(module, name)
import armap_lite
for module in pkgutil.walk_packages(armap_lite.__path__, "armap_lite."):
    if not module.name.endswith(("__main__", "scale")):  # scale needs Ray, which need not be there
        importlib.import_module(module.name)
from armap_lite.storage import store
assert store.fcntl is None
with store.JsonlStore({str(tmp_path / "a.jsonl")!r}) as file:
    file.append({{"id": "x"}})
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr.decode()


# Kernels


def test_notebooks_run_in_this_interpreter_whatever_kernels_are_installed(tmp_path, monkeypatch, capfd):
    other = tmp_path / "other/kernels/python3"
    other.mkdir(parents=True)
    spec = {"argv": [sys.executable, "-c", "raise SystemExit(7)"], "display_name": "Python 3", "language": "python"}
    (other / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "other"))
    cells = ["ENV = 'game24'\nPROFILE = 'fast'", f"import sys\nassert sys.executable == {sys.executable!r}"]
    book = {
        "cells": [
            {
                "cell_type": "code",
                "id": f"c{i}",
                "metadata": {"tags": [] if i else ["parameters"]},
                "source": source,
                "outputs": [],
                "execution_count": None,
            }
            for i, source in enumerate(cells)
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (tmp_path / "00_a.ipynb").write_text(json.dumps(book), encoding="utf-8")
    parameters = {"ENV": "game24", "PROFILE": "fast"}
    reproduce.execute(tmp_path / "00_a.ipynb", tmp_path / "out.ipynb", parameters)
    assert os.environ["JUPYTER_PATH"] == str(tmp_path / "other")
    assert "WARNING" not in capfd.readouterr().err


def test_make_lab_prefers_the_kernel_of_this_installation(tmp_path: Path):
    found = "import sys; from jupyter_client.kernelspec import KernelSpecManager as Specs; "
    found += "print(Specs(ensure_native_kernel=False).get_kernel_spec('python3').resource_dir)"
    (tmp_path / "jupyter").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{found}"\n', encoding="utf-8")
    (tmp_path / "jupyter").chmod(0o755)
    home = tmp_path / "home/.local/share/jupyter"
    for where in (tmp_path / "path", home):
        (where / "kernels/python3").mkdir(parents=True)
        spec = {"argv": ["/no/python"], "display_name": "another", "language": "python"}
        (where / "kernels/python3/kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    outer = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    outer |= {"JUPYTER_PATH": str(tmp_path / "path"), "HOME": str(tmp_path / "home"), "JUPYTER_PREFER_ENV_PATH": "0"}
    command = ["make", "--silent", "--old-file=.venv/installed", "lab", f"BIN={tmp_path}"]
    shown = subprocess.run(command, cwd=ROOT, env=outer, capture_output=True, text=True, encoding="utf-8")
    assert shown.stdout.startswith(sys.prefix), shown.stdout + shown.stderr


# A cache that may only be read


def state(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_a_full_cache_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fetched = assets.fetch("game24-puzzles")
    monkeypatch.setenv("ARMAP_CACHE", str(tmp_path))
    there = assets.ASSETS["game24-puzzles"].path
    there.parent.mkdir()
    there.write_bytes(fetched.read_bytes())
    monkeypatch.setattr(catalogue, "_files", lambda seed: iter([("pictures/a.png", b"a")]))
    shop = catalogue.build()
    before = state(tmp_path)
    assert assets.fetch("game24-puzzles") == there and catalogue.build() == shop
    assert state(tmp_path) == before


def test_what_is_only_a_memo_needs_no_room(tmp_path: Path):
    (tmp_path / "file").touch()
    store.write_memo(tmp_path / "file/folder/memo", "text")  # no folder can be made there, whoever asks
    store.write_memo(tmp_path / "folder/memo", "text")
    assert (tmp_path / "folder/memo").read_bytes() == b"text"
    with pytest.raises(OSError):
        store.write_atomic(tmp_path / "file/folder/memo", "text")


# An environment without pip


def test_an_asset_that_only_pip_can_fetch_names_pip(tmp_path, monkeypatch):
    monkeypatch.setenv("ARMAP_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(assets.AssetError, match="uv pip install pip"):
        assets.fetch("game24-puzzles")
