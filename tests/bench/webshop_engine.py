"""The shop engine on the 1,000 real products: steps a second of a random agent, memory, and two simple agents' rewards.

python tests/bench/webshop_engine.py FOLDER     FOLDER: WebShop's own files; without it, the catalogue made here

The reference was measured once on the same products with the official code (Flask, HTML, Lucene): 22 steps a second,
195 MB; mean reward of a random agent 0.082, of "search the instruction, buy the first hit" 0.498. What can differ here:
BM25 instead of Lucene's index (the first hit), the searches an agent may choose from and when it gives up (random),
and the price caps, which the official code draws anew at every start. Time is this process's own, so that a busy
machine does not count; memory is the peak with the shop loaded and the episodes done.
"""

import argparse
import json
import platform
import random
import resource
import time

OFFICIAL = {"steps_per_second": 22, "megabytes": 195, "random": 0.082, "first_hit": 0.498}


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--limit", type=int, default=15, help="steps after which the random agent gives up")
    args = parser.parse_args()

    from armap_lite.envs.webshop.environment import WebShop
    from armap_lite.trajectory import Task, Trajectory

    start = time.process_time()
    env = WebShop(args.folder)
    tasks = [*env.tasks("test"), *env.tasks("dev")][: args.tasks]
    env.reset(tasks[0])
    loaded = time.process_time() - start

    def episode(task: Task, rng: random.Random) -> Trajectory:
        observation = env.reset(task)
        trajectory = Trajectory.begin(task, observation)
        while not observation.done and len(trajectory.steps) < args.limit:
            # All links of a page, as for the official random agent: `admissible` leaves out what was done before.
            links = [f"click[{value}]" for value in env._shop.links(env._page)] or observation.admissible
            action = rng.choice(links)
            observation = env.step(action)
            trajectory = trajectory.then(action, observation)
        return trajectory

    start = time.process_time()
    walks = [episode(task, random.Random(i)) for i, task in enumerate(tasks)]
    seconds, memory = time.process_time() - start, megabytes()
    speed = sum(len(walk.steps) for walk in walks) / seconds

    first = []
    for task in tasks:
        env.reset(task)
        search = f"search[{task.instruction}]"
        click = next((a for a in env.step(search).admissible if a.startswith("click[b0")), "click[back to search]")
        first.append(env.replay(task, [search, click, "click[buy now]"]))

    from armap_lite.envs.webshop.judge import WebShopJudge

    judge = WebShopJudge(args.folder)
    rewards = {
        name: sum(map(judge.score, done)) / len(done) for name, done in (("random", walks), ("first_hit", first))
    }
    details = {
        "steps_per_second": round(speed),
        "load_seconds": round(loaded, 2),
        "megabytes": round(memory),
        "steps": sum(len(walk.steps) for walk in walks),
        "tasks": len(tasks),
        **{f"reward_{name}": round(mean, 3) for name, mean in rewards.items()},
        "official": OFFICIAL,
    }
    print(
        json.dumps(
            {
                "name": "webshop_engine",
                "ratio": round(speed / OFFICIAL["steps_per_second"], 1),
                "versus": "the official code's 22 steps a second",
                "unit": "times as fast",
                "device": f"1 thread of {platform.machine()}",
                "details": details,
            }
        )
    )


if __name__ == "__main__":
    main()
