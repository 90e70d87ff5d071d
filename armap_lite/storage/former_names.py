"""Settings that had another name before: in files of an earlier version they are read by the one that they have now."""

import re
from collections.abc import Mapping
from typing import Any

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


def current_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` by their present names. Raises ValueError for one that is there under both."""
    if twice := [name for name in fields if FORMER_NAMES.get(name) in fields]:
        raise ValueError(f"{twice[0]!r} is the former name of {FORMER_NAMES[twice[0]]!r}, which is there too")
    return {FORMER_NAMES.get(name, name): value for name, value in fields.items()}


def current_repr(text: str) -> str:
    """What `repr` gave of settings: their names stand before "=", or in quotes before ":"."""
    return re.sub(rf"\b({'|'.join(FORMER_NAMES)})(?='?[=:])", lambda match: FORMER_NAMES[match[1]], text)
