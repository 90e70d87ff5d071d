"""The command line: notebooks run in order and once, errors in one line, a report that stands alone."""

import base64
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bs4 import BeautifulSoup
from shop import make_shop

from armap_lite import envs
from armap_lite.display.cells import notebook_paths
from armap_lite.pipeline import reproduce, results
from armap_lite.pipeline.commands import main
from armap_lite.pipeline.run import Run
from armap_lite.pipeline.run_dir import STAGE_FILES
from armap_lite.storage.former_names import FORMER_NAMES

ROOT = Path(__file__).parents[1]
HOSTILE = "<script>alert('&\"1\"')</script>"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NAMES = ("ENV", "PROFILE", "RUN_DIR", "SEED", "POLICY", "REWARD", "DATA_LLM")
PARAMETERS = "".join(f"{name} = None\n" for name in NAMES)
FINDINGS: dict[str, Any] = {
    "differences": [],
    "rows": [
        {
            "env": "game24",
            "env_version": "1",
            "split": "test",
            "metric": HOSTILE,
            "planner": planner,
            "policy": "tiny",
            "reward_model": "tiny",
            "profile": "fast",
            "seed": 0,
            "n": 4,
            "mean": 0.25 * k,
            "ci_low": 0.0,
            "ci_high": 1.0,
            "llm_tokens": 400,
            "llm_tokens_without_reuse": 600,
            "env_steps": 12,
            "reward_calls": 8,
            "failures": 0,
            "seconds": 1.5,
            "device": "cpu",
        }
        for k, planner in enumerate(("sampling", "best_of_n"))
    ],
    "reward_model": [
        {
            "env": "game24",
            "model": "own",
            "pair_accuracy": 0.875,
            "ci_low": 0.75,
            "ci_high": 1.0,
            "n_pairs": 8,
            "n_tasks": 4,
            "baseline": None,
            "order_accuracy": None,
            "order_ci_low": None,
            "order_ci_high": None,
            "order_n_pairs": 0,
            "order_n_tasks": 0,
            "shortened": 0.25,
            "shortened_planned": 0.5,
        }
    ],
    "control": [],
}


def write_notebook(folder: Path, stem: str, *cells: str, parameters: str = PARAMETERS) -> Path:
    def code(source: str, *tags: str) -> dict[str, Any]:
        lines = {"source": source, "metadata": {"tags": list(tags)}}
        return {"cell_type": "code", "execution_count": None, "outputs": [], "id": f"c{len(source)}", **lines}

    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    all_cells = [code(parameters, "parameters"), *map(code, cells)]
    path = folder / f"{stem}.ipynb"
    path.write_text(
        json.dumps({"cells": all_cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8"
    )
    return path


def cells_of(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.fixture
def notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of throwaway notebooks in the place of the real ones."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setattr("armap_lite.display.cells.NOTEBOOKS", folder)
    return folder


def call(out: Path, *more: str) -> int:
    return main(["reproduce", "--env", "game24", "--out", str(out), *more])


# What is wrong with a command is said in one line.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reproduce", "--env", "chess"], "environment 'chess' is not known; there is game24"),
        (["reproduce", "--env", "game24", "chess"], "environment 'chess' is not known; there is game24"),
        (["reproduce", "--profile", "huge"], "profile 'huge' is not known; there is fast, laptop, gpu, paper"),
        (["reproduce", "--only", "09_more"], "notebook '09_more' is not known; there is 00_first"),
        (["report", "nowhere"], "nowhere holds no evaluation yet"),
        (["assets", "moon"], "unknown asset 'moon'"),
    ],
)
def test_a_wrong_name_is_one_line(
    arguments: list[str], message: str, notebooks: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    write_notebook(notebooks, "00_first")
    monkeypatch.chdir(notebooks.parent)
    assert main(arguments) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    with pytest.raises(Exception, match=re.escape(message)):
        main([*arguments, "--debug"])


def test_options_of_the_environment_come_from_a_variable_and_belong_to_the_run(tmp_path, monkeypatch):
    folder = str(make_shop(tmp_path / "shop"))
    monkeypatch.setenv("ARMAP_LITE_ENV_OPTIONS", json.dumps({"webshop": {"folder": folder}}))
    run = Run("webshop", "fast", tmp_path / "out")
    assert "B0STRIPED1" in run.env._shop.products
    run.path("trajectories.jsonl").touch()
    monkeypatch.delenv("ARMAP_LITE_ENV_OPTIONS")
    with pytest.raises(ValueError, match="was made with env_options="):
        Run("webshop", "fast", tmp_path / "out")
    for told, why in (("[1]", ""), ('{"shop": {}}', "'shop' is no"), ('{"webshop": {"folder": "a"}}', "'a' is no abs")):
        monkeypatch.setenv("ARMAP_LITE_ENV_OPTIONS", told)
        with pytest.raises(ValueError, match=rf"ARMAP_LITE_ENV_OPTIONS=.*{why}.*expected JSON like"):
            Run("webshop", "fast", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("more", "was"),
    [(["--seed", "1"], "seed=0"), (["--profile", "laptop"], "profile='fast'"), (["--policy", "x"], "policy='smollm2")],
)
def test_a_folder_of_another_run_is_refused_before_any_work(
    more: list[str], was: str, notebooks: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    write_notebook(notebooks, "00_first", "raise SystemError('this must not run')")
    Run("game24", "fast", tmp_path / "out", seed=0).path("trajectories.jsonl").touch()
    before = sorted((tmp_path / "out").rglob("*"))
    assert call(tmp_path / "out", *more) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"was made with {was}" in line and line.endswith(
        "(RUN_DIR in a notebook, OUT with make), or delete this one"
    )
    assert sorted((tmp_path / "out").rglob("*")) == before


@pytest.mark.parametrize("format", [None, 1, 99])
def test_a_folder_of_another_version_is_refused_in_one_line(format: int | None, tmp_path: Path):
    run = Run("game24", "fast", tmp_path)
    run.path("trajectories.jsonl").touch()
    Run("game24", "fast", tmp_path)  # its own folder
    kept = json.loads(run.path("run.json").read_text(encoding="utf-8"))
    del kept["format"]
    run.path("run.json").write_text(
        json.dumps(kept if format is None else kept | {"format": str(format)}), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="was made by another version .* take another folder") as error:
        Run("game24", "fast", tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_whose_settings_had_other_names_goes_on(tmp_path: Path):
    run = Run("game24", "fast", tmp_path)
    run.path("trajectories.jsonl").touch()
    now, former = run.path("run.json").read_text(encoding="utf-8"), {new: old for old, new in FORMER_NAMES.items()}
    then = re.sub(rf"\b({'|'.join(former)})(?=['\"]?[=:])", lambda match: former[match[1]], now)
    assert "RewardConfig(backbone=" in then and "keep=16" in then and '"mirror"' in then
    run.path("run.json").write_text(then, encoding="utf-8")
    Run("game24", "fast", tmp_path)
    assert run.path("run.json").read_text(encoding="utf-8") == now


def test_a_setting_that_no_profile_has_is_one_clear_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no setting 'sample'; there is .*samples"):
        Run("game24", "fast", tmp_path, sample=2)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_which_nothing_was_made_yet_takes_other_settings(tmp_path: Path):
    run = Run("game24", "fast", tmp_path, policy="a-typo")
    Run("game24", "fast", run.path("start_here"), policy="a-typo")
    run.path("notebooks").mkdir()
    run.path("notebooks/00_start_here.ipynb").touch()  # of a notebook that failed
    assert "a-typo" not in Run("game24", "fast", tmp_path, seed=3).path("run.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "left", ["trajectories.jsonl.parts/0-4.jsonl", "answers.json", "start_here/game24/pairs.jsonl"]
)
def test_what_an_interrupted_run_left_belongs_to_its_settings(left: str, tmp_path: Path):
    file = Run("game24", "fast", tmp_path).path(left)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    with pytest.raises(ValueError, match="was made with seed=0"):
        Run("game24", "fast", tmp_path, seed=3)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"policy": "/nowhere/model.gguf"}, "/nowhere/model.gguf does not exist; give an asset"),
        ({"policy": "./a_typo"}, "./a_typo does not exist"),
        ({"data_llm": "http://localhost:9/v1#m scoring=guess"}, "unknown scoring 'guess'"),
        ({"data_llm": "http://localhost:9/v1#m retries=-1"}, "retries is -1"),
        ({"reward": "/nowhere/model"}, "/nowhere/model does not exist"),
        ({"reward": "http://localhost:9/v1#m"}, "a reward model runs on this machine, not at http://localhost:9/v1#m"),
    ],
)
def test_a_model_that_cannot_be_is_reported_before_any_work(models: dict[str, str], message: str, tmp_path: Path):
    with pytest.raises((ValueError, RuntimeError, OSError), match=re.escape(message)):
        Run("game24", "fast", tmp_path, **models)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", 'http://localhost:9/v1#m extra={"a":}'], "which is no valid JSON"),
        (["--ray", "num_cpus"], "'num_cpus' is not RESOURCE=AMOUNT, as in num_cpus=4"),
        (["--ray", "num_cpus=many"], "'num_cpus=many' is not RESOURCE=AMOUNT"),
    ],
)
def test_an_option_that_cannot_be_read_says_what_is_expected(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    with pytest.raises(SystemExit):
        call(tmp_path, *arguments)
    assert message in capsys.readouterr().err


def test_the_report_of_one_world_s_folder_names_that_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "game24").mkdir()
    (tmp_path / "game24/evaluation.json").write_text("{}", encoding="utf-8")
    assert main(["report", str(tmp_path / "game24")]) == 1
    assert f"is the folder of one world; give the run's, {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": -3}, "samples=-3: expected a whole number, at least 1"),
        ({"num_drafts": -1}, "num_drafts=-1: expected a whole number, at least 0"),
        ({"num_negatives": -1}, "num_negatives=-1: expected a whole number, at least 0"),
        ({"num_negatives": 0, "num_attempt_negatives": 0}, "expected at least one negative per trajectory"),
        ({"collect_tasks": 1.5}, "collect_tasks=1.5: expected"),
        ({"test_tasks": 0}, "test_tasks=0: expected"),
        ({"engine": {"dtype": "float16"}}, "engine has no option 'dtype'; it has capacity, pack"),
        ({"planners": {"best_of_nn": {}}}, "planner 'best_of_nn' is not known; there is sampling,"),
        ({"planners": {"mcts": {"finish": True}}}, "no option 'finish'; it has rollouts, "),
        ({"planners": {"reflexion": {"n": 3}}}, "planner reflexion has no option 'n'; it has trials, threshold,"),
        ({"planners": {"greedy": {"n": 3}}}, "planner greedy has no option 'n'; it has none"),
        ({"planners": {"mcts": {"env_steps": {"of": "greedy"}}}}, "mcts takes the budget of None"),
    ],
)
def test_a_wrong_size_is_refused_before_anything_is_written(change: dict, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=re.escape(message)):
        Run("game24", "fast", tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"env":', "is torn"),
        ("", "is torn"),
        ("[]", r"holds \[\], no JSON object"),
        ("[" * 100_000, "is torn"),
        ('{"policy": "smollm2"}', "is not as a run writes it"),
        ('{"policy": 5}', "is not as a run writes it"),
        ('{"policy": "5"}', "is not as a run writes it"),
    ],
)
def test_a_run_json_that_cannot_be_read_is_one_clear_error(content: str, fault: str, tmp_path: Path):
    run = Run("game24", "fast", tmp_path)
    run.path("trajectories.jsonl").touch()
    run.path("run.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"run\.json {fault}.*; take another folder .* delete the one it is in$"):
        Run("game24", "fast", tmp_path)
    assert run.path("run.json").read_text(encoding="utf-8") == content


@pytest.mark.parametrize("name", ["hindsight", "hindsight_version", "env_options", "reward_options", "control_weights"])
def test_a_setting_that_an_earlier_version_did_not_have_counts_as_its_default(name: str, tmp_path: Path):
    run = Run("game24", "fast", tmp_path)
    run.path("trajectories.jsonl").touch()
    now = json.loads(run.path("run.json").read_text(encoding="utf-8"))
    run.path("run.json").write_text(json.dumps({k: v for k, v in now.items() if k != name}), encoding="utf-8")
    Run("game24", "fast", tmp_path)
    assert json.loads(run.path("run.json").read_text(encoding="utf-8")) == now


def test_pairs_of_another_reading_are_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Run("game24", "fast", tmp_path).path("pairs.jsonl").touch()
    monkeypatch.setattr(envs.lookup("game24")[0], "hindsight_version", 2, raising=False)
    with pytest.raises(ValueError, match="was made with hindsight_version=1; take another folder"):
        Run("game24", "fast", tmp_path)


@pytest.mark.parametrize(("name", "change"), [("hindsight", {"hindsight": "llm"}), ("version", {})])
def test_a_run_that_did_not_note_what_is_no_default_is_of_an_earlier_version(name: str, change: dict, tmp_path: Path):
    run = Run("game24", "fast", tmp_path)
    run.path("trajectories.jsonl").touch()
    now = json.loads(run.path("run.json").read_text(encoding="utf-8"))
    run.path("run.json").write_text(json.dumps({k: v for k, v in now.items() if k != name}), encoding="utf-8")
    with pytest.raises(ValueError, match=f"made by an earlier version of armap-lite, which did not note {name}; take"):
        Run("game24", "fast", tmp_path, **change)


@pytest.mark.parametrize("name", STAGE_FILES)
def test_results_that_no_run_json_explains_are_not_claimed(name: str, tmp_path: Path):
    (tmp_path / "game24").mkdir()
    (tmp_path / "game24" / name).touch()
    with pytest.raises(ValueError, match=f"game24 holds {name}, but no run.json .*; take another folder"):
        Run("game24", "fast", tmp_path)
    assert [file.name for file in (tmp_path / "game24").iterdir()] == [name]


def test_weights_of_a_term_that_the_world_does_not_have_are_refused_with_the_world(tmp_path: Path):
    run = Run("game24", "fast", tmp_path, control_weights={"price": (0.0, 1.0)})
    with pytest.raises(ValueError, match="no term 'price' in game24; it has largest number on the way, in tens"):
        _ = run.train_tasks


@pytest.mark.slow
def test_the_real_command_ends_with_status_1_and_one_line():
    command = [sys.executable, "-m", "armap_lite", "reproduce", "--env", "chess"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert (
        ran.stderr
        == "error: environment 'chess' is not known; there is game24, scienceworld, webshop; notebook 08 adds one\n"
    )


def test_no_notebooks_is_an_error(notebooks: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert call(tmp_path / "out") == 1
    assert call(tmp_path / "out", "--only", "05_plan") == 1
    assert capsys.readouterr().err.count(f"error: no notebooks in {notebooks}; run from a checkout") == 2
    assert not (tmp_path / "out").exists()


def test_a_parameter_that_no_cell_names_is_an_error(notebooks: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    write_notebook(notebooks, "00_first", parameters=PARAMETERS.replace("SEED", "SEEDS"))
    assert call(tmp_path / "out") == 1
    assert "00_first.ipynb has no parameter 'SEED'; its parameters cell must name it" in capsys.readouterr().err
    assert not (tmp_path / "out/game24/notebooks").exists()


# What a notebook takes, and what it says it takes.


@pytest.mark.parametrize("notebook", notebook_paths(), ids=lambda path: path.stem)
def test_each_notebook_says_how_long_it_takes(notebook: Path):
    assert 1 <= (reproduce.stated_minutes(notebook) or 0) <= 15
    assert (reproduce.stated_minutes(notebook, alone=True) or 0) >= reproduce.stated_minutes(notebook)


def test_a_notebook_that_takes_longer_than_it_says_is_named(notebooks: Path, tmp_path: Path, capsys, monkeypatch):
    path = write_notebook(notebooks, "00_first", "print(1)")
    node = json.loads(path.read_text(encoding="utf-8"))
    opening = "- *Time:* 1–2 minutes on two CPU cores; 9 minutes with the earlier stages."
    node["cells"].insert(0, {"cell_type": "markdown", "id": "o", "metadata": {}, "source": opening})
    path.write_text(json.dumps(node), encoding="utf-8")
    parameters = {"ENV": "game24", "PROFILE": "fast"}
    for step, late in ((170.0, False), (190.0, True)):  # seconds that each look at the clock finds gone
        monkeypatch.setattr(reproduce, "time", SimpleNamespace(perf_counter=itertools.count(0.0, step).__next__))
        reproduce.execute(path, tmp_path / f"{step}.ipynb", parameters)
        shown = capsys.readouterr().out
        assert f"{step:.0f} s, it says 2 min" in shown and ("more than 1.5 times" in shown) == late
    assert reproduce.stated_minutes(path, alone=True) == 9
    assert reproduce.stated_minutes(write_notebook(notebooks, "01_second", "print(1)")) is None


def test_only_the_cells_of_the_readers_world_run(notebooks: Path, tmp_path: Path):
    path = write_notebook(notebooks, "00_first", "1 / 0", "print(ENV, 'of', 'ours')")
    node = json.loads(path.read_text(encoding="utf-8"))
    node["cells"][1]["metadata"]["tags"] = ["world:game24"]
    node["cells"][2]["metadata"]["tags"] = ["world:webshop", "world:scienceworld"]
    path.write_text(json.dumps(node), encoding="utf-8")
    reproduce.execute(path, tmp_path / "out.ipynb", {"ENV": "webshop", "PROFILE": "fast"})
    cells = cells_of(tmp_path / "out.ipynb")
    assert "".join(cells[-1]["outputs"][0]["text"]) == "webshop of ours\n"
    assert not any("1 / 0" in "".join(one["source"]) for one in cells)


# Notebooks run in order, as far as they have to.


def test_a_server_that_has_moved_is_no_reason_to_run_a_notebook_again(notebooks: Path, tmp_path: Path):
    out, log = tmp_path / "out", tmp_path / "log"
    write_notebook(notebooks, "00_first", f"with open({str(log)!r}, 'a') as log: print(POLICY, DATA_LLM, file=log)")
    spec = 'http://127.0.0.1:%d/v1#m extra={"top_k": %d} timeout=9'
    models = ["--policy", spec % (1, 5), "--data-llm", "other device=cpu", "--only", "00_first"]
    assert call(out, *models) == 0
    assert log.read_text(encoding="utf-8") == f"{spec % (1, 5)} other device=cpu\n"
    assert call(out, "--policy", spec % (2, 5), "--data-llm", "other", "--only", "00_first") == 0
    assert len(log.read_text(encoding="utf-8").splitlines()) == 1
    (out / "game24/trajectories.jsonl").touch()
    assert call(out, "--policy", spec % (2, 6), "--data-llm", "other", "--only", "00_first") == 1  # another run


@pytest.mark.slow
def test_notebooks_run_until_one_fails_and_go_on_from_there(
    notebooks: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    out, log = tmp_path / "out", tmp_path / "log"
    note = f"with open({str(log)!r}, 'a') as log: log.write(%r)"
    write_notebook(notebooks, "00_first", note % "first ", "print(ENV, PROFILE, SEED, POLICY, RUN_DIR)")
    write_notebook(notebooks, "01_second", note % "second ", "print('half way')\n1 / 0", note % "never")
    write_notebook(notebooks, "02_third", note % "third ")
    write_notebook(notebooks, "not_one_of_them", note % "other")

    assert call(out) == 1
    shown = capsys.readouterr()
    [error] = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert shown.err.splitlines()[-1] == error  # after the progress bars
    assert "01_second.ipynb, cell 4: ZeroDivisionError: division by zero" in error
    assert "Traceback" not in shown.err
    assert "[game24 1/3] 00_first" in shown.out
    assert log.read_text(encoding="utf-8") == "first second "
    first = cells_of(out / "game24/notebooks/00_first.ipynb")
    assert first[-1]["outputs"][0]["text"] == [f"game24 fast 0 None {out.resolve()}\n"]
    half = cells_of(out / "game24/notebooks/01_second.ipynb")  # what ran until there is kept
    outputs = [output for cell in half if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert {"half way\n"} == {line for o in outputs if o["output_type"] == "stream" for line in o["text"]}
    assert "ZeroDivisionError" in [o["ename"] for o in outputs if o["output_type"] == "error"]
    assert not (out / "report.html").exists()

    found = f"import json; open({str(out / 'game24/evaluation.json')!r}, 'w').write({json.dumps(FINDINGS)!r})"
    write_notebook(notebooks, "01_second", note % "mended ", found)
    assert call(out) == 0
    assert log.read_text(encoding="utf-8") == "first second mended third "  # the first one is not run again
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "report.html")
    results.validate(json.loads((out / "results.json").read_text(encoding="utf-8")))

    assert call(out) == 0
    assert log.read_text(encoding="utf-8") == "first second mended third "  # nothing is
    write_notebook(notebooks, "02_third", note % "changed ")
    (out / "game24/notebooks/00_first.ipynb").unlink()
    assert call(out, "--only", "00_first", "02_third") == 0
    assert (
        log.read_text(encoding="utf-8") == "first second mended third first changed "
    )  # what changed, and what is not there


@pytest.mark.slow
def test_what_follows_from_other_pairs_or_another_model_is_run_again(notebooks: Path, tmp_path: Path):
    run, log = tmp_path / "out/game24", tmp_path / "log"
    run.mkdir(parents=True)
    note = f"from pathlib import Path\nwith open({str(log)!r}, 'a') as log: log.write(%r)\nrun = Path({str(run)!r})\n"
    trained = "pairs = (run / 'pairs.jsonl').read_text()\n(run / 'training.json').write_text(pairs)"
    write_notebook(notebooks, "02_collect", note % "2")
    write_notebook(notebooks, "03_pairs", note % "3" + "(run / 'pairs.jsonl').open('a').close()")
    write_notebook(notebooks, "04_train", note % "4" + trained)
    write_notebook(notebooks, "05_plan", note % "5" + "(run / 'plans.jsonl').touch()")
    write_notebook(
        notebooks, "07_results", note % "7" + f"(run / 'evaluation.json').write_text({json.dumps(FINDINGS)!r})"
    )

    def ran() -> str:
        log.write_text("", encoding="utf-8")
        assert call(tmp_path / "out") == 0
        return log.read_text(encoding="utf-8")

    assert (ran(), ran()) == ("23457", "")
    (run / "pairs.jsonl").write_text("other", encoding="utf-8")
    for name in ("plans.jsonl", "evaluation.json"):  # as stage 3 does with what follows from the model before
        (run / name).replace(run / f"{name}.old")
    assert (ran(), ran()) == ("3457", "")
    (run / "evaluation.json").unlink()
    assert (ran(), ran()) == ("7", "")
    (run / "training.json").write_text("trained anew, elsewhere", encoding="utf-8")
    assert "4" in ran() and ran() == ""


def test_a_kernel_that_dies_is_named_and_one_notebook_alone_is_enough(
    notebooks: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    write_notebook(notebooks, "00_first", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    write_notebook(notebooks, "01_second", "1 + 1")
    assert call(tmp_path / "out", "--only", "00_first") == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: 00_first.ipynb: Kernel died"
    assert call(tmp_path / "out", "--only", "01_second") == 0
    assert (tmp_path / "out/game24/notebooks/01_second.ipynb").is_file()
    assert not (tmp_path / "out/results.json").exists()  # there is nothing to report on yet


# The report.


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """What notebooks leave behind: findings, figures, and a page with everything one may find on one."""
    out = tmp_path / "run <i>one"
    env = out / "game24"
    (env / "figures").mkdir(parents=True)
    (env / "evaluation.json").write_text(json.dumps(FINDINGS), encoding="utf-8")
    (env / "figures/curve.png").write_bytes(PIXEL)
    (env / "figures/curve.txt").write_text(f"A curve' onload='alert(1) {HOSTILE}", encoding="utf-8")
    (env / "figures/bare_bones.png").write_bytes(PIXEL)
    (env / "notebooks").mkdir()
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": HOSTILE},
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {"image/png": base64.b64encode(PIXEL).decode(), "text/plain": "<Figure>"},
        },
        {
            "output_type": "display_data",
            "metadata": {},
            "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/plain": "0%| WIDGET"},
        },
    ]
    path = write_notebook(env / "notebooks", "00_<u>", "print(answer)")
    book = json.loads(path.read_text(encoding="utf-8"))
    book["cells"][1] |= {"outputs": outputs, "execution_count": 1}
    text = "See [a page](https://example.org/page), where $R = w \\cdot z$.\n\n```python\nimport this\n```"
    book["cells"].append({"cell_type": "markdown", "id": "m", "metadata": {}, "source": text})
    state = {"version_major": 2, "version_minor": 0, "state": {"m": {"model_name": "X", "model_module": "x"}}}
    book["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": state}
    path.write_text(json.dumps(book), encoding="utf-8")
    return out


def test_report_rebuilds_one_page_that_needs_nothing_else(finished: Path, capsys: pytest.CaptureFixture):
    assert main(["report", str(finished)]) == 0
    assert capsys.readouterr().out.strip() == str(finished / "report.html")
    found = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    results.validate(found)
    assert found["rows"] == FINDINGS["rows"]
    whole = (finished / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|object|embed|base|iframe)\b", whole)
    sources = re.findall(r"\b(?:src|href|srcset|poster|data)\s*=\s*[\"']?([^\"'\s>]+)", whole)
    assert [s for s in sources if not s.startswith(("data:image/", "#"))] == ["https://example.org/page"]
    assert not re.findall(r"@import|url\(\s*[\"']?(?!data:|#)[^)]", whole)
    assert whole.count("data:image/png;base64," + base64.b64encode(PIXEL).decode()) == 3
    assert "0.250 [0.000, 1.000]" in whole and "0.875 [0.750, 1.000]" in whole
    assert "<math" in whole and "import" in whole and "print" in whole
    assert "WIDGET" not in whole  # a progress bar that stands still says nothing

    (finished / "report.html").unlink()
    assert main(["report", str(finished)]) == 0
    assert (finished / "report.html").read_text(encoding="utf-8") == whole

    (finished / "game24/answers.json").write_text('{"parsed": 7, "misses": 3, "fallbacks": 1}', encoding="utf-8")
    assert "3 answers not admissible" not in whole and main(["report", str(finished)]) == 0
    assert "3 answers not admissible, 1 actions drawn instead" in (finished / "report.html").read_text(encoding="utf-8")


def test_the_report_escapes_what_it_shows(finished: Path):
    main(["report", str(finished)])
    whole = (finished / "report.html").read_text(encoding="utf-8")
    page = BeautifulSoup(whole, "html.parser")
    assert not page.find_all(["script", "u"]) and not page.find_all(onload=True)
    assert page.get_text().count(HOSTILE) == 3  # the metric, the caption of a figure, and what a cell printed
    assert "00_<u>" in page.get_text() and "run <i>one" in page.get_text()
    assert {figure["alt"] for figure in page.select("figure img")} == {
        f"A curve' onload='alert(1) {HOSTILE}",
        "bare bones",
    }


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"rows": [', "is torn"),
        ('{"rows": []}', "'differences' is missing"),
        ('{"rows": [], "differences": [], "reward_model": [], "control": []}', "rows is empty"),
        ('{"rows": [5], "differences": [], "reward_model": [], "control": []}', "07_results"),
        (
            '{"rows": [{"env": "game24"}], "differences": [], "reward_model": [], "control": []}',
            "rows[0]: missing fields",
        ),
    ],
)
def test_an_evaluation_that_cannot_be_read_is_named_and_nothing_is_written(
    content: str, fault: str, finished: Path, capsys: pytest.CaptureFixture
):
    file = finished / "game24/evaluation.json"
    file.write_text(content, encoding="utf-8")
    assert main(["report", str(finished)]) == 1
    said = capsys.readouterr().err
    assert str(file) in said and fault in said and said.endswith("; run notebook 07_results again\n")
    assert not (finished / "results.json").exists()


def test_without_a_report_there_are_no_results(finished: Path, capsys: pytest.CaptureFixture):
    answers = finished / "game24/answers.json"
    answers.write_text("{", encoding="utf-8")
    assert main(["report", str(finished)]) == 1
    assert f"{answers} is torn" in capsys.readouterr().err and not (finished / "results.json").exists()
    answers.unlink()
    assert main(["report", str(finished)]) == 0
    kept = {name: (finished / name).read_bytes() for name in ("results.json", "report.html")}
    rows = [row | {"mean": 0.5} for row in FINDINGS["rows"]]
    (finished / "game24/evaluation.json").write_text(json.dumps({**FINDINGS, "rows": rows}), encoding="utf-8")
    answers.write_text("{", encoding="utf-8")
    assert main(["report", str(finished)]) == 1
    assert {name: (finished / name).read_bytes() for name in kept} == kept


def test_wrong_findings_stop_the_report_and_keep_the_old_one(finished: Path, capsys: pytest.CaptureFixture):
    assert main(["report", str(finished)]) == 0
    before = {name: (finished / name).read_bytes() for name in ("results.json", "report.html")}
    broken = {**FINDINGS, "rows": [FINDINGS["rows"][0] | {"mean": 1.5}]}
    (finished / "game24/evaluation.json").write_text(json.dumps(broken), encoding="utf-8")
    assert main(["report", str(finished)]) == 1
    assert "rows[0]: ci_low 0.0 <= mean 1.5 <= ci_high 1.0" in capsys.readouterr().err
    assert before == {name: (finished / name).read_bytes() for name in before}
