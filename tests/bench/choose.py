"""`choose` three ways, on the embedded model: the cost of one answer after a prompt that has been read already.

whole     what `LocalLM` does: all strings at once, one forward pass over their trie under a tree mask
walk      token by token down the trie, a forward pass at each branching, with the key-value cache; one draw
one_each  string by string, a forward pass each, with the key-value cache (with more than 30, timed on 30 and scaled)

Only the first and the last give the probability of each string; the walk draws from another distribution, in which
each token is normalised among those that the trie allows.

python tests/bench/choose.py [--quick]
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import torch

from armap_lite import llms
from armap_lite.agent import Agent
from armap_lite.envs.game24 import Game24, instruction
from armap_lite.trajectory import Task, Trajectory

VERBS = (
    "open,close,activate,deactivate,look at,look in,move to,pick up,focus on,use,read,eat,pour,mix,examine,drop,wait by"
)
THINGS = (
    "the oven,the sink,a metal pot,a glass jar,the freezer,the red box,an apple,the door to the hallway,a thermometer,"
)
THINGS += "the stove,a blue wire,the battery,a light bulb,the bee hive,a paint cup,the table,an orange seed,a soil bag,"
THINGS += "the window,the counter,a wooden cup,the lighter,the chair,a painting"


class Walker:
    """One model, one prompt with its keys and values, and the trie of some strings."""

    def __init__(self, lm: Any, prompt: str, options: list[str]):
        self.model, self.device = lm.model, lm.model.device
        self.head = [lm.lines.start, *lm.lines(prompt)]
        self.options = [[*lm.lines(option), lm.lines.newline] for option in options]
        self.trie: dict[int, Any] = {}
        for tokens in self.options:
            node = self.trie
            for token in tokens:
                node = node.setdefault(token, {})
        with torch.inference_mode():
            read = self.model(input_ids=torch.tensor([self.head], device=self.device), use_cache=True)
        self.cache, self.first = read.past_key_values, read.logits[0, -1]  # [V]

    def after(self, tokens: list[int]) -> torch.Tensor:
        """Logits after more `tokens`, which stay in the cache: [len(tokens), V]."""
        ids = torch.tensor([tokens], device=self.device)  # [1, T]
        with torch.inference_mode():
            return self.model(input_ids=ids, past_key_values=self.cache, use_cache=True).logits[0]

    def forget(self) -> None:
        """Back to the prompt."""
        if more := self.cache.get_seq_length() - len(self.head):
            self.cache.crop(-more)

    def walk(self) -> list[int]:
        path, fresh, node = [], [], self.trie
        while node:
            if len(node) > 1:  # where only one token can follow, nothing has to be asked
                logits = self.after(fresh)[-1] if fresh else self.first
                allowed = torch.tensor(list(node), device=self.device)
                token, fresh = int(allowed[torch.multinomial(logits[allowed].float().softmax(-1), 1)]), []
            else:
                [token] = node
            path.append(token)
            fresh.append(token)
            node = node[token]
        self.forget()
        return path

    def one_each(self, options: list[list[int]]) -> list[float]:
        scores = []
        for tokens in options:
            logits = torch.cat([self.first[None], self.after(tokens)[:-1]]).float().log_softmax(-1)  # [T, V]
            scores.append(float(logits[range(len(tokens)), tokens].sum()))
            self.forget()
        return scores


def fastest(work: Callable[[], Any], repeats: int, before: Callable[[], Any] = lambda: None) -> float:
    seconds = []
    for _ in range(repeats):
        before()
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="each way once instead of three times")
    repeats = 1 if parser.parse_args().quick else 3
    lm, env = llms.load("smollm2-135m-instruct"), Game24()
    task = Task("t", "game24", "test", instruction([4, 5, 6, 10], 24), {"numbers": [4, 5, 6, 10], "target": 24})
    prompt = Agent(lm, env).prompt(Trajectory.begin(task, env.reset(task)))
    lists = {30: list(env.admissible()), 400: [" ".join(p) for p in product(VERBS.split(","), THINGS.split(","))][:400]}

    details: dict[str, Any] = {
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "prompt_tokens": len(lm.lines(prompt)),
    }
    for count, options in lists.items():
        assert len(options) == count

        def prompt_only() -> None:
            lm.reset()
            lm.choose([prompt], [["x"]])

        walker = Walker(lm, prompt, options)
        few = walker.options[:30]
        whole = fastest(lambda: lm.choose([prompt], [options]), repeats, prompt_only)  # noqa: B023
        walk = fastest(walker.walk, 2 * repeats)
        each = fastest(lambda: walker.one_each(few), repeats) * count / len(few)  # noqa: B023
        scored = torch.tensor(walker.one_each(few))
        agreed = torch.tensor([c.logprob for c in lm.choose([prompt], [options], n=None)[0][:30]])
        details[str(count)] = {
            "trie_tokens": sum(1 for _ in nodes(walker.trie)),
            "whole_seconds": round(whole, 3),
            "walk_seconds": round(walk, 3),
            "one_each_seconds": round(each, 3),
            "largest_difference_of_logprobs": round(float((scored - agreed - (scored - agreed).mean()).abs().max()), 4),
        }
    first = details["30"]
    print(
        json.dumps(
            {
                "name": "choose",
                "ratio": round(first["walk_seconds"] / first["whole_seconds"], 2),
                "versus": "one draw token by token down the trie, 30 strings",
                "unit": "times as fast",
                "device": torch.cuda.get_device_name()
                if torch.cuda.is_available()
                else f"{torch.get_num_threads()} threads of {platform.machine()}",
                "details": details,
            }
        )
    )


def nodes(trie: dict[int, Any]) -> Any:
    for token, below in trie.items():
        yield token
        yield from nodes(below)


if __name__ == "__main__":
    main()
