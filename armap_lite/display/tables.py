"""Result rows as Markdown, and trajectories in a line."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from armap_lite.evaluate import FLOOR, OWN
from armap_lite.trajectory import Trajectory, transcript
from armap_lite.vision.pictures import encode

COLUMNS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "env": ("env", lambda row: row["env"]),
    "seed": ("seed", lambda row: row["seed"]),
    "planner": ("planner", lambda row: f"`{row['planner']}`"),
    "mean": ("mean [95 % interval]", lambda row: f"{row['mean']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"),
    "n": ("tasks", lambda row: row["n"]),
    "seeds": ("seeds", lambda row: row["seeds"]),
    "llm_tokens": ("LLM tokens / task", lambda row: f"{row['llm_tokens'] / row['n']:,.0f}"),
    "env_steps": ("env steps / task", lambda row: f"{row['env_steps'] / row['n']:,.1f}"),
    "reward_calls": ("reward calls / task", lambda row: f"{row['reward_calls'] / row['n']:,.1f}"),
}


def in_a_line(trajectory: Trajectory, most: int = 100) -> str:
    """What the models read from the first action on; a longer text loses its middle: how it ended matters most.

    One that stopped before the episode was over says so: in a shop, it bought nothing.
    """
    lines, said = transcript(trajectory).splitlines(), "" if trajectory.done else " (not over)"
    text = "; ".join(lines[1 + (trajectory.show == "always") :])
    return cut(text, most - len(said)) + said


def on_one_line(observation: str) -> str:
    """An observation as the models read it."""
    return " ".join(observation.split()).replace(" [SEP] ", " | ")


def ending(trajectory: Trajectory, most: int = 90) -> str:
    """What was seen last, on one line; a longer text loses its beginning: a page ends with what was chosen on it."""
    text = on_one_line(trajectory.steps[-1].observation if trajectory.steps else trajectory.start)
    return text if len(text) <= most else f"… {text[2 - most :].partition(' ')[2] or text[2 - most :]}"


def cut(text: str, most: int) -> str:
    """`text` without its middle where it has more than `most` characters; whole words, where there are any."""
    if len(text) <= most:
        return text
    start, end = text[: most // 3], text[3 + most // 3 - most :]
    return f"{start.rpartition(' ')[0] or start} … {end.partition(' ')[2] or end}"


def side_by_side(one: Trajectory, other: Trajectory, names: tuple[str, str]) -> str:
    """Two trajectories' actions in two columns, from before the first difference on; many lose their middle."""
    both = itertools.zip_longest(one.steps, other.steps)
    rows = [[step.action if step else "" for step in steps] for steps in both]
    start = max(0, next((i for i, (a, b) in enumerate(rows) if a != b), 0) - 1)
    rows = [["…", "…"]] * bool(start) + rows[start:]
    rows = rows if len(rows) <= 6 else [*rows[:3], ["…", "…"], *rows[-2:]]
    marks = [" " if a == b == "…" else "=" if a == b else "≠" for a, b in rows]
    both_cut = [[cut(action, 34) for action in row] for row in rows]
    lines = [f"     {names[0]:36} {names[1]}", *(f"  {mark}  {a:36} {b}" for mark, (a, b) in zip(marks, both_cut))]
    return "\n".join(line.rstrip() for line in lines)


def page_names(trajectories: Iterable[Trajectory]) -> dict[str, str]:
    """Action -> title and price of the page that it opens, in a shop, where an action is a number."""
    title = re.compile(r"(.+?) \[SEP\] Price: (\S+)")
    steps = (step for trajectory in trajectories for step in trajectory.steps)
    return {step.action: " ".join(found.groups()) for step in steps if (found := title.match(step.observation))}


def read_text(reward: Any, instruction: str, trajectory: Trajectory) -> str:
    """What the `RewardModel` reads of a trajectory: without its middle (`[…]`) where that is too long.

    All of it where there is no model, and for a finished one, which has a template of its own.
    """
    if reward is None or reward.finished or not reward.encode(instruction, trajectory)[1]:
        return transcript(trajectory, instruction)
    ids, _ = reward.encode(instruction, trajectory)
    pictures, words = reward.network.pictures, reward.lines.tokenizer
    whole, _ = encode(reward.lines, trajectory, instruction, 10**9, pictures)
    kept = next((k for k, (one, other) in enumerate(zip(ids, whole)) if one != other), len(ids))

    def text(tokens: Iterable[int]) -> Iterator[str]:
        for seen, some in itertools.groupby(tokens, lambda token: bool(pictures) and token >= pictures.vocabulary):
            yield " [picture] " if seen else words.decode([*some], skip_special_tokens=True)

    return f"{''.join(text(ids[:kept]))} […] {''.join(text(ids[kept:]))}".strip()


def results_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table of result rows or pooled rows; env and seed are columns only where they tell rows apart."""
    fields = [field for field in COLUMNS if all(field in row for row in rows)]
    fields = [f for f in fields if f not in ("env", "seed") or len({row[f] for row in rows}) > 1]
    cells = [[COLUMNS[f][0] for f in fields], ["---" if f == "planner" else "---:" for f in fields]]
    cells += [[str(COLUMNS[f][1](row)) for f in fields] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def p_text(p_value: float) -> str:
    """A p-value that was counted over 10,000 draws."""
    return f"p {'≤' if p_value <= 0.0001 else '='} {p_value:.4f}"


def told_apart(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether the interval of each difference excludes 0 and its p is below 0.05 after Holm's correction."""
    ranked = sorted(range(len(rows)), key=lambda k: rows[k]["p_value"])
    small = itertools.takewhile(lambda k: rows[k]["p_value"] * (len(rows) - ranked.index(k)) < 0.05, ranked)
    apart = {k for k in small if not rows[k]["ci_low"] <= 0 <= rows[k]["ci_high"]}
    return [k in apart for k in range(len(rows))]


def verdict(row: Mapping[str, Any], sure: bool) -> str:
    """What a difference of which `told_apart` says `sure` allows to say."""
    if sure:
        return "told apart"
    if row["ci_low"] == row["ci_high"] == 0:
        return "no score changed"
    return "cannot tell" if row["ci_low"] <= 0 <= row["ci_high"] else "cannot tell, as there are many comparisons"


def conclusions(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], str]:
    """What a run shows: the differences between planners that matter most, a line each, and the answer in a few words.

    `rows`: as `evaluate.differences` gives them; those that a run does not have are left out.
    """
    found = {(row["planner"], row["versus"]): (row, sure) for row, sure in zip(rows, told_apart(rows))}
    guided, baselines = ("best_of_n", "mcts"), ("sampling", "greedy")
    asked = [*((a, b) for b in baselines for a in guided), ("mcts", "best_of_n")]
    lines, above = [], {b: list[str]() for b in baselines}
    wanted = [("best_of_n", FLOOR), *asked, (OWN, FLOOR), (OWN, "greedy")]
    for pair in wanted:
        if pair in found:
            row, sure = found[pair]
            said = f"{row['difference']:+.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}], {p_text(row['p_value'])}"
            lines.append(f"{' - '.join(pair)}: {said}; {row['n']} tasks: {verdict(row, sure)}")
            if sure and row["difference"] > 0 and pair[0] in guided and pair[1] in baselines:
                above[pair[1]].append(pair[0].replace("_", " "))
    missing = [" - ".join(pair) for pair in wanted if pair in found and not found[pair][1]]
    lines.append(f"of these, this run does not show: {', '.join(missing) or 'none'}")
    if above["sampling"] == above["greedy"]:
        return lines, f"Better than sampling and greedy: {' and '.join(above['greedy']) or 'neither'}"
    return lines, "; ".join(
        f"better than {b}: {' and '.join(some) or 'neither'}" for b, some in above.items()
    ).capitalize()
