"""Language models: one contract, on this machine (`local.py`) or behind a URL (`server.py`)."""

from __future__ import annotations

import inspect
from typing import Any

from armap_lite.llms.base import Choice, Completion, LanguageModel

__all__ = ["Choice", "Completion", "LanguageModel", "load"]


def load(spec: str, **options: Any) -> LanguageModel:
    """The language model that `spec` names.

    `spec`: `http://host:port/v1#model` (without `#model` the server's only one), else what runs here: an asset's name,
    a Hugging Face id, a folder or a GGUF file.
    `options`: those of `ServerLM`, or `device` and `dtype` (see `device.pick`) and those of `LocalLM`.
    Raises TypeError for an unknown option, ServerError or AssetError where there is no such model.
    """
    if spec.startswith(("http://", "https://")):
        from armap_lite.llms.server import ServerLM

        url, _, model = spec.partition("#")
        return ServerLM(url, model or None, **options)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from armap_lite.assets import resolve_model, without_bars
    from armap_lite.llms.device import pick
    from armap_lite.llms.local import LocalLM

    device, dtype = pick(options.pop("device", "auto"), options.pop("dtype", "auto"))
    options = {"name": spec, **options}
    inspect.signature(LocalLM).bind(None, None, **options)  # a wrong option shows before minutes of loading
    path = resolve_model(spec)
    with without_bars(path):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device)
    return LocalLM(model, AutoTokenizer.from_pretrained(path), **options)
