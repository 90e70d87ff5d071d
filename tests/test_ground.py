"""The ground of the project: one list of versions, `make` as documented, notebooks fit to be committed and run."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = {
    extra: [Requirement(line) for line in lines] for extra, lines in PROJECT["optional-dependencies"].items()
}
REQUIREMENTS[""] = [Requirement(line) for line in PROJECT["dependencies"]]
PINNED = {canonicalize_name(requirement.name) for group in REQUIREMENTS.values() for requirement in group}
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
BINDER = (ROOT / "binder/requirements.txt").read_text(encoding="utf-8").splitlines()
CI = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]["ci"]
PYTHONS = CI["strategy"]["matrix"]["python"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("python", PYTHONS)
def test_each_python_gets_exactly_one_exact_version_of_each_package(python: str):
    assert python in SpecifierSet(PROJECT["requires-python"])
    for extra, group in REQUIREMENTS.items():
        applying = [r for r in group if r.marker is None or r.marker.evaluate({"python_version": python})]
        names = [requirement.name for requirement in applying]
        assert len(names) == len(set(names)), extra
        assert extra in ("dev", "trl") or set(names) == {requirement.name for requirement in group}, extra
        for requirement in applying:
            assert re.fullmatch(r"==[\d.]+", str(requirement.specifier)), requirement


def test_all_pythons_that_are_allowed_are_tested():
    minors = [f"3.{minor}" for minor in range(30)]
    assert [python for python in minors if python in SpecifierSet(PROJECT["requires-python"])] == PYTHONS
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    low, high = (
        tuple(map(int, part.split(", "))) for part in re.search(r"\((3.*)\) <= v < \((3.*)\)", makefile).groups()
    )
    assert [f"3.{minor}" for minor in range(30) if low <= (3, minor) < high] == PYTHONS


def test_the_documented_extras_exist():
    assert {"scienceworld", "scale", "dev"} <= REQUIREMENTS.keys()


def test_conda_and_binder_install_this_package_and_name_no_version_of_their_own():
    *conda, pip = CONDA
    named = {canonicalize_name(re.split(r"[^\w.-]", line)[0]) for line in conda}
    assert not named & PINNED
    [python] = [line.removeprefix("python ") for line in conda if re.search(r"\d", line)]
    tried = [f"3.{minor}" for minor in range(9, 20) if f"3.{minor}" in SpecifierSet(python)]
    assert tried == ["3.10", "3.11", "3.12", "3.13"]  # conda takes the newest: one that was tested
    assert all(version in SpecifierSet(PROJECT["requires-python"]) for version in tried)
    for lines in (pip["pip"], [line for line in BINDER if line and line[0] != "#" and "index-url" not in line]):
        [extras] = [re.fullmatch(r"-e \.\[([\w,]+)\]", line)[1].split(",") for line in lines]
        assert set(extras) == {"scienceworld", "webshop", "gymnasium"} <= set(REQUIREMENTS)
    runtime = (ROOT / "binder/runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")
    assert runtime in SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize("name", ["Makefile", ".ci/run", ".github/workflows/ci.yml", "environment.yml"])
def test_no_second_list_of_versions(name: str):
    pins = re.findall(
        rf"\b({'|'.join(map(re.escape, PINNED))})\b *[=<>~!]=? *\d", (ROOT / name).read_text(encoding="utf-8")
    )
    assert not pins


def test_what_the_package_imports_is_what_it_requires():
    distributions = packages_distributions()
    for path in sorted((ROOT / "armap_lite").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            for top in {module.partition(".")[0] for module in modules} - {"armap_lite", *sys.stdlib_module_names}:
                names = {canonicalize_name(name) for name in distributions.get(top, [top])}
                assert names & PINNED, f"{path.name} imports {top}, which pyproject.toml does not list"


def test_the_citation_has_the_version_of_the_package():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == PROJECT["version"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "--profile fast --out runs/fast --seed 0"),
        (["ENV=game24 webshop", "PROFILE=laptop"], "--profile laptop --out runs/laptop --seed 0 --env game24 webshop"),
        (["OUT=elsewhere", "SEED=3"], "--profile fast --out elsewhere --seed 3"),
        (["OUT=../my Drive/it's"], """--profile fast --out "../my Drive/it's" --seed 0"""),
        (["DATA_LLM=it's", "REWARD=r"], r"--profile fast --out runs/fast --seed 0 --data-llm 'it'\''s' --reward 'r'"),
    ],
)
def test_make_reproduce_runs_the_documented_command(given: list[str], expected: str):
    # the shell's own ENV, a start file, is no environment of ours
    [shown] = would_run("--old-file=.venv/installed", "reproduce", *given, ENV="/etc/profile")
    assert shlex.split(shown) == shlex.split(f".venv/bin/python -m armap_lite reproduce {expected}")


@pytest.mark.parametrize(
    ("given", "installer"),
    [
        ([], ".venv/bin/python -m pip install"),
        (["PIP=--index-url X --quiet"], ".venv/bin/python -m pip install --index-url X --quiet"),
        (["UV=1", "PIP=--torch-backend cpu"], "uv pip install --python .venv/bin/python --torch-backend cpu"),
    ],
)
def test_make_installs_by_pip_or_uv_with_the_options_given(given: list[str], installer: str):
    shown = would_run("--always-make", "install", "PYTHON=/my apps/python3", *given, UV="/usr/bin/uv")
    venv, torch, package = (shlex.split(line) for line in shown[-4:-1])
    assert venv == ["/my apps/python3", "-m", "venv", ".venv"]
    assert torch == [*installer.split(), str(next(r for r in REQUIREMENTS[""] if r.name == "torch"))]
    assert package[:-1] == [*installer.split(), "-e"]
    assert set(package[-1][2:-1].split(",")) == REQUIREMENTS.keys() - {"", "scale", "trl"}


def would_run(*arguments: str, **variables: str) -> list[str]:
    """The commands of `make`, with these variables in its shell."""
    outer = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")} | variables
    shown = subprocess.run(
        ["make", "--dry-run", *arguments], cwd=ROOT, env=outer, capture_output=True, text=True, encoding="utf-8"
    )
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.splitlines()


def test_make_hands_on_a_model_with_blanks_and_quotes_as_one_word(tmp_path: Path):
    spec = """http://localhost:8000/v1#my-model concurrency=4 extra={"top_k": -1, "stop": "it's"}"""
    outer = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    (tmp_path / "python").write_text('#!/bin/sh\nfor word; do echo "$word"; done\n', encoding="utf-8")
    (tmp_path / "python").chmod(0o755)
    command = ["make", "-s", "--old-file=.venv/installed", "reproduce", f"BIN={tmp_path}", f"POLICY={spec}"]
    shown = subprocess.run(command, cwd=ROOT, env=outer, capture_output=True, text=True, encoding="utf-8")
    words = shown.stdout.splitlines()
    assert words[words.index("--policy") + 1] == spec, shown.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_one_cell_of_the_same_parameters_and_no_outputs(path: Path):
    code = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    [parameters] = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    body = ast.parse("".join(parameters["source"])).body
    targets = [target for node in body for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]
    names = "DATA_LLM ENV POLICY PROFILE REWARD RUN_DIR SEED"
    assert sorted(target.id for target in targets) == names.split()
