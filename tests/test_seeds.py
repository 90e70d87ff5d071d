"""The records of measured seeds and the README beside them; how measuring scripts say that they are called."""

import runpy
import sys
from pathlib import Path

import pytest

from armap_lite import statistics

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests/bench"))

import measured  # noqa: E402

RECORDS = sorted(measured.KEPT.glob("*.json"))


@pytest.mark.parametrize("name", sorted({file.name.split("-")[0] for file in RECORDS}))
def test_readme_of_measurements_has_the_pooled_rows_of_the_records(name: str):
    found = [measured.load(str(file), name.split("_")[0]) for file in RECORDS if file.name.startswith(f"{name}-")]
    assert len({head["seed"] for head, _ in found}) == len(found) and len({head["profile"] for head, _ in found}) == 1
    scores, family = measured.scores([plans for _, plans in found])
    lines = (ROOT / "tests/bench/README.md").read_text(encoding="utf-8").replace("**", "").splitlines()
    for row in measured.pooled_rows(scores, family):
        said = f"| {row['mean']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}] |"
        assert any(f"`{row['planner']}`" in line and said in line for line in lines), (row["planner"], said)
    for _, plans in found:
        assert all(len(p.scores) == len(p.rewards) and all(0 <= score <= 1 for score in p.scores) for p in plans)
        assert all(len(cost) == len(p.scores) for p in plans for cost in p.costs.values())


def test_pooling_averages_seeds_within_a_task():
    seeds = [{"a": 1.0, "b": 0.0}, {"b": 1.0, "a": 1.0}]
    [row] = measured.pooled_rows({"mcts": seeds})
    mean, low, high = statistics.bootstrap_mean([1.0, 0.5])
    assert row == {"planner": "mcts", "seeds": 2, "n": 2, "mean": mean, "ci_low": low, "ci_high": high}
    with pytest.raises(ValueError, match="'mcts, seed no. 1' lacks 1 of 2 tasks"):
        measured.pooled_rows({"mcts": [seeds[0], {"a": 1.0}]})


@pytest.mark.parametrize("script", sorted((ROOT / "tests/bench").glob("*.py")), ids=lambda path: path.stem)
def test_a_script_that_is_asked_for_help_measures_nothing(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0 and capsys.readouterr().out.startswith(f"usage: {script.name} [-h]")
