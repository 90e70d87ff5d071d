"""What every language model checks before it answers, and its draws among choices."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from armap_lite.llms.base import Choice


def check_request(
    prompts: Sequence[str],
    temperature: float,
    seeds: Sequence[int] | None,
    choices: Sequence[Sequence[str]] | None = None,
) -> None:
    """Raise ValueError for a prompt, temperature, seeds or choices that cannot be used."""
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature={temperature} is not a finite number of 0 or more; 0 takes the most probable")
    for what, given in (("seeds", seeds), ("lists of choices", choices)):
        if given is not None and len(given) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {len(given)} {what}; each prompt needs its own")
    for prompt, options in zip(prompts, choices or [()] * len(prompts)):
        if choices is not None and not options:
            raise ValueError(f"no choices for the prompt ending in {prompt[-60:]!r}; a finished episode has none")
        for text in (prompt, *options):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"half of a character, {text[error.start]!r}, stands in {text[max(0, error.start - 20) :][:60]!r}; "
                    "text has to be valid Unicode: read it with errors='replace'"
                ) from None


def tempered(logits: Sequence[float | None], temperature: float, options: Sequence[str] = ()) -> np.ndarray:
    """Log-probabilities that are proportional to `logits` / `temperature`; at 0, all for the first of the highest.

    `options`: the choices that the logits belong to, where some may be equal: these share their probability.
    Raises ValueError where each of `logits` is -inf.
    """
    found = np.array(logits, dtype=np.float64)
    if found.max() == -np.inf:
        raise ValueError(f"the model gives each of {len(found)} choices the probability 0; load it with dtype=float32")
    if temperature == 0:
        return np.where(np.arange(len(found)) == found.argmax(), 0.0, -np.inf)
    with np.errstate(over="ignore"):
        shifted = (found - found.max()) / temperature
    if options:
        equal = Counter(options)
        shifted = shifted - np.log([equal[option] for option in options])
    return shifted - np.log(np.exp(shifted).sum())


def draw(
    options: Sequence[str], logits: Sequence[float], temperature: float, n: int | None, seed: int | None, tokens: int
) -> list[Choice]:
    """`n` draws among `options` with their `logits`, each with a cost of `tokens`; None: every option."""
    logp = tempered(logits, temperature, options)
    p = np.exp(logp)
    rng = np.random.default_rng(seed)
    picks = range(len(options)) if n is None else rng.choice(len(p), n, p=p / p.sum()).tolist()
    return [Choice(options[k], k, float(logp[k]), tokens) for k in picks]
