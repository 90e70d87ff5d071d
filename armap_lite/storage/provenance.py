"""What a model was trained on: a hash of its data, its settings and its seed, so that no work is done twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from armap_lite.storage.fields import current_names
from armap_lite.storage.records import Record


def trained_on(pairs: Iterable[Record], reward: Any, training: Any, seed: int) -> dict[str, Any]:
    """The inputs of a training run, as JSON: the SHA-256 of the pairs' content, the settings and the seed.

    `reward`, `training`: dataclasses, a `RewardConfig` and a `TrainingConfig`.
    """
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps(pair.to_json(), sort_keys=True).encode() + b"\n")
    settings = {"reward": dataclasses.asdict(reward), "training": dataclasses.asdict(training)}
    return {"pairs_sha256": digest.hexdigest(), "seed": seed, **settings}


def same_source(known: Any, mine: dict[str, Any], kinds: Mapping[str, Any]) -> bool:
    """Whether `known`, read from a file, equals `mine`, a `trained_on`.

    Fields that an earlier version did not have are taken to have their defaults, those of the dataclasses `kinds`.
    """
    if not isinstance(known, dict):
        return False
    now = {name: {**dataclasses.asdict(kind()), **current_names(known.get(name) or {})} for name, kind in kinds.items()}
    return {**known, **now} == mine
