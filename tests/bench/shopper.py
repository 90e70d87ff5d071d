"""What two rules without any model reach in WebShop: `python tests/bench/shopper.py [--tasks 60]`

first hit   search with the longest query that is offered, open the first product, buy it
options     the same, and click each option whose words stand in the instruction before buying

Played on the test goals that `fast` plays. Last line: JSON, ratio = score with options to that without.
"""

import argparse
import contextlib
import json
import re
from typing import Any

import numpy as np

from armap_lite import envs, statistics
from armap_lite.pipeline import results
from armap_lite.pipeline.run import evenly_spaced

LINK, PRODUCT = re.compile(r"click\[(.+)\]"), re.compile(r"click\[b0\w{8}\]")


def play(env: Any, task: Any, options: bool) -> list[str]:
    """The actions of the rule on `task`."""
    actions = [max(env.reset(task).admissible, key=len)]
    page = env.step(actions[0])
    actions.append(next(action for action in page.admissible if PRODUCT.fullmatch(action)))  # the best hit
    page = env.step(actions[-1])
    words = f" {re.sub(r'[^a-z0-9]+', ' ', task.instruction.lower())} "
    while options:
        links = [action for action in page.admissible if (found := LINK.match(action)) and f" {found[1]} " in words]
        if not (new := [action for action in links if action not in actions]):
            break
        actions.append(new[0])
        page = env.step(new[0])
    return [*actions, "click[buy now]"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=60)
    env, found = envs.make("webshop"), {}
    tasks = evenly_spaced(env.tasks("test"), parser.parse_args().tasks)
    with contextlib.closing(envs.make_judge("webshop")) as judge:
        for name, options in (("first hit", False), ("options", True)):
            scores = [judge.score(env.replay(task, play(env, task, options))) for task in tasks]
            _, low, high = statistics.bootstrap_mean(scores)
            found[name] = {"mean": np.mean(scores), "ci_low": low, "ci_high": high, "full": scores.count(1)}
            full = f"{scores.count(1)} full scores of {len(tasks)}"
            print(f"{name:10} {np.mean(scores):.3f} [{low:.3f}, {high:.3f}], {full}")
    ratio = found["options"]["mean"] / found["first hit"]["mean"]
    head = {"name": "shopper", "ratio": ratio, "versus": "the first hit", "unit": "score"}
    print(json.dumps({**head, "device": results.versions()["cpu"], "details": found}))


if __name__ == "__main__":
    main()
