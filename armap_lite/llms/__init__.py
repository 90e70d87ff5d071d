"""Language models: one contract, on this machine (`local.py`) or behind a URL (`server.py`)."""

from typing import Any

from armap_lite.llms.base import Choice, Completion, LanguageModel
from armap_lite.llms.spec import check, is_url, parse_spec

__all__ = ["Choice", "Completion", "LanguageModel", "load", "parse_spec"]


def load(spec: str, **options: Any) -> LanguageModel:
    """The language model that `spec` names: `SOURCE [name=value …]` (see `parse_spec`).

    Source: `http://host:port/v1#model` (without `#model` the server's only one), else what runs here: an asset's name,
    a Hugging Face id, a folder or a GGUF file.
    Options, in `spec` or (for what it leaves open) as keywords: those of `ServerLM`, or `device` and `dtype` (see
    `device.pick`) and those of `LocalLM`.
    Raises TypeError for an unknown option, ServerError or AssetError where there is no such model.
    """
    source, options = check(spec, **options)  # a wrong option shows before minutes of loading
    if is_url(source):
        from armap_lite.llms.server import ServerLM

        url, _, model = source.partition("#")
        return ServerLM(url, model or None, **options)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from armap_lite.llms.device import pick
    from armap_lite.llms.local import LocalLM
    from armap_lite.storage.assets import pretrained, resolve_model

    device, dtype = pick(options.pop("device", "auto"), options.pop("dtype", "auto"))
    path = resolve_model(source)
    model = pretrained(AutoModelForCausalLM, path, dtype=dtype).to(device)
    return LocalLM(model, AutoTokenizer.from_pretrained(path), **{"name": source, **options})
