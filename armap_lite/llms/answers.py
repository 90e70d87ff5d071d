"""What a server's LLM counts about its answers, for the report: `answers.json` of a run."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

COUNTS = ("parsed", "misses", "fallbacks", "unfinished", "asked")  # see `ServerLM`
ENOUGH = 30  # actions, from which on more than a fifth drawn at random stop a run


def check_random(drawn: int, asked: int, where: str, way_out: str) -> None:
    """Raise UnreadableAnswersError where so many of `asked` actions were drawn at random that a run means nothing.

    Of fewer than ENOUGH actions a few unlucky draws may be a fifth: there it takes five or more, and over half.
    """
    if drawn > asked / 5 if asked >= ENOUGH else drawn >= 5 and drawn > asked / 2:
        from armap_lite.llms.client import UnreadableAnswersError

        raise UnreadableAnswersError(
            f"{drawn} of {asked} actions ({drawn / asked:.0%}) were drawn at random, because {where} answered with "
            f"none of the admissible ones{way_out} endpoint= or structured= in the model's options"
        )


def check(counts: Mapping[str, int], folder: str) -> None:
    """`check_random` of the `counts` of all stages so far in `folder`."""
    drawn = counts.get("fallbacks", 0)
    asked = max(counts.get("asked", 0), drawn + counts.get("parsed", 0))  # older runs did not count it
    way_out = f" in {folder}; start in another folder with another model, or another"
    check_random(drawn, asked, "the policy's server", way_out)


def taken(lm: Any) -> dict[str, int]:
    """What `lm` has counted since the last call; empty where it had nothing to count, as an LLM on this machine."""
    total = Counter({name: getattr(lm, name, 0) for name in COUNTS})
    before: Any = getattr(lm, "taken", Counter())
    if not (new := total - before):
        return {}
    lm.taken = total
    return {name: new[name] for name in COUNTS if new[name] or name not in ("unfinished", "asked")}


def invalid_action_summary(counts: Mapping[str, int]) -> str:
    """`counts` in words: answers of a server that is not held to the admissible actions."""
    read, missed, drawn, unfinished, asked = (counts.get(name, 0) for name in COUNTS)
    said = f"{read} actions read out of free text, {missed} answers not admissible, {drawn} actions drawn instead"
    said += f", of {asked} actions in all" if asked else ""
    return said + (f", {unfinished} texts empty, as the thought before them was cut off" if unfinished else "")
