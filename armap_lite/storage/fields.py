"""Fields of settings: checked when a dataclass is made, and by their present names when a file is read."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

Config = TypeVar("Config")
KINDS: dict[str, Any] = {"int": int, "float": int | float, "str": str, "bool": bool, "None": type(None)}


# In files that an earlier version wrote: former name, present name.
FORMER_NAMES = {
    # of a reward model and its training
    "keep": "num_layers",
    "train": "trainable",
    "accumulate": "accumulate_grad_batches",
    "clip": "gradient_clip_val",
    "centring": "center_rewards_coefficient",
    "held_out": "val_fraction",
    "checks": "num_validations",
    # of stages 1 and 2
    "proposals": "num_proposals",
    "negatives": "num_negatives",
    "texts": "num_drafts",
    "mirror": "swap_roles",
    # of planners
    "finish": "expand_terminal_siblings",
    "draws": "num_action_samples",
    "depth": "max_branching_depth",
}


def hint(name: str, known: Sequence[str]) -> str:
    """What to say of `name`, which is not among the `known` ones: its present name, or which ones there are."""
    now = FORMER_NAMES.get(name)
    return f"it is called {now!r} now" if now in known else f"it has {', '.join(known) or 'none'}"


def current_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` of a file by the names they have now. Raises ValueError for a field given under both names."""
    now = {FORMER_NAMES.get(name, name): value for name, value in fields.items()}
    if len(now) < len(fields):
        twice = [name for name in fields if FORMER_NAMES.get(name) in fields]
        raise ValueError(f"{twice[0]!r} is the former name of {FORMER_NAMES[twice[0]]!r}, which is there too")
    return now


def checked(kind: type[Config]) -> type[Config]:
    """The dataclass `kind`, which raises ValueError for a field that it does not have, or a value of another type."""
    fields, made = dataclasses.fields(kind), kind.__init__  # type: ignore[misc, arg-type]

    @functools.wraps(made)
    def init(self: Any, *values: Any, **named: Any) -> None:
        known = [field.name for field in fields]
        if unknown := [name for name in named if name not in known]:
            raise ValueError(f"{kind.__name__} has no field {unknown[0]!r}; {hint(unknown[0], known)}")
        for name, value in {**dict(zip(known, values)), **named}.items():
            expected = str(next(field.type for field in fields if field.name == name))
            kinds = tuple(KINDS[one] for one in expected.split(" | "))
            if not isinstance(value, kinds) or (isinstance(value, bool) and expected != "bool"):
                raise ValueError(f"{name}={value!r}: expected {expected}")
        made(self, *values, **named)

    kind.__init__ = init  # type: ignore[method-assign]
    return kind
