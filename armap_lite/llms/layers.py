"""The stack of layers inside a transformers model, found without knowing its names, and changed for a while."""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def replaced(objects: Iterable[Any], name: str, value: Any) -> Iterator[None]:
    """Within, the attribute `name` of each of `objects` is `value`."""
    before = [(one, getattr(one, name), name in vars(one)) for one in objects]
    try:
        for one, *_ in before:
            setattr(one, name, value)
        yield
    finally:
        for one, usual, own in before:
            setattr(one, name, usual)
            if not own:  # a method or a property of its class
                vars(one).pop(name, None)


def find(model: Any) -> tuple[nn.Module, str] | None:
    """The module that holds the decoder's layers and their name in it; None where there is no such list.

    Of the module lists that do not lie in another one, it is the one with the most parameters.
    """
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    total = model.config.get_text_config().num_hidden_layers
    inner = {name for name in lists if any(name.startswith(f"{outer}.") for outer in lists)}
    fitting = [name for name in lists if name not in inner and len(lists[name]) == total]
    if not fitting:
        return None
    parent, _, own = max(fitting, key=lambda name: sum(p.numel() for p in lists[name].parameters())).rpartition(".")
    return model.get_submodule(parent), own


def _found(model: Any, purpose: str, way_out: str) -> tuple[nn.Module, str]:
    place = find(model)
    if place is None:
        raise ValueError(f"{purpose}: the layers of {type(model).__name__} were not found; use {way_out}")
    return place


def cut(model: Any, num_layers: int) -> Callable[[], None]:
    """Leave only the first `num_layers` layers, in the model and in its config. Returns a function that undoes it.

    Raises ValueError where the layers are not found, or `num_layers` is not between 1 and their number.
    """
    parent, name = _found(model, f"num_layers={num_layers}", "num_layers=None, all of it")
    layers, config = getattr(parent, name), model.config.get_text_config()
    total = len(layers)
    if not 0 < num_layers <= total:
        raise ValueError(f"num_layers={num_layers}, but the backbone has {total} layers; choose 1 to that many")
    lists = {k: v for k, v in vars(config).items() if isinstance(v, list | tuple) and len(v) == total}  # of each layer

    def set_to(some: nn.Module, count: int) -> None:
        setattr(parent, name, some)
        config.num_hidden_layers = count
        for key, value in lists.items():
            setattr(config, key, value[:count])

    set_to(layers[:num_layers], num_layers)
    return lambda: set_to(layers, total)


def top(model: Any, count: int) -> list[nn.Module]:
    """The last `count` layers and what follows them: the final norm. Raises ValueError where there are not so many."""
    parent, name = _found(model, f"the last {count} layers", "trainable='lora:16' or 'all'")
    if count > (total := len(getattr(parent, name))):
        raise ValueError(f"trainable='top:{count}', but {total} layers are kept; choose up to top:{total}")
    after, found = False, list(getattr(parent, name)[-count:])
    for own, module in parent.named_children():
        if after or own.startswith("final"):  # OPT makes its final norm before its layers
            found.append(module)
        after = after or own == name
    return found


def with_lora(model: Any, rank: int) -> nn.Module:
    """`model` with LoRA adapters of `rank` in all linear layers. Raises ValueError where they do not fit."""
    from peft import LoraConfig, inject_adapter_in_model

    lora = LoraConfig(r=rank, lora_alpha=max(16, rank // 4), lora_dropout=0.0, target_modules="all-linear")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="peft")  # about kinds of layers that it adapts by itself
            return inject_adapter_in_model(lora, model)
    except ValueError as error:  # such as Mamba, whose fused kernels go around the adapters
        raise ValueError(
            f"trainable='lora:{rank}' does not fit this backbone; use 'top:8' or 'all' ({error})"
        ) from error


def context(model: Any) -> tuple[int | None, int | None]:
    """The tokens that `model` can read, where it looks positions up in a table, and those that its config states."""
    config = model.config.get_text_config()
    found = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)
    if not isinstance(found, int) or found < 1:  # XLNet states -1: no limit
        return None, None
    if not hasattr(config, "max_position_embeddings"):  # MPT, whose slopes are a table
        return found, found
    limits, words = [], _words(model)
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module is not words and 0 <= module.num_embeddings - found <= 8:
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa counts from there
            limits.append(min(found, module.num_embeddings - reserved))
        others = [*module._buffers.values(), *(v for v in vars(module).values() if isinstance(v, Tensor))]
        limits += [found for table in others if table is not None and table.dim() == 2 and len(table) == found]
    rope = getattr(config, "rope_parameters", None) or {}
    grows = "dynamic" in str(rope.get("rope_type"))  # its frequencies follow the length of the text
    return min(limits, default=None), None if grows else found


def _words(model: Any) -> nn.Module:
    embedding = model.get_input_embeddings()
    return getattr(embedding, "words", embedding)  # a reward model with pictures wraps it


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Raise ValueError where `tokenizer` has tokens that `model` has no embedding for; added ones may be spare."""
    has, needs = getattr(_words(model), "num_embeddings", None), getattr(tokenizer, "vocab_size", 0)
    if has is not None and has < needs:
        raise ValueError(
            f"the tokenizer has {needs} tokens, but {type(model).__name__} has embeddings for {has} only: they do not "
            "belong together; give the folder with the model's own tokenizer"
        )


def score(head: Any, states: Tensor) -> Tensor:
    """The scalar `head` of a reward model applied to hidden `states` [B, H] -> [B], in fp32."""
    with torch.autocast(states.device.type, enabled=False):  # two rewards may differ by less than bf16 resolves
        return head(states.float())[:, 0]  # [B]


def kinds(model: Any) -> int | None:
    """How many layers, from the first on, contain each kind of layer (at least two); None if none are found."""
    place = find(model)
    if place is None:
        return None
    types = getattr(model.config.get_text_config(), "layer_types", None) or ()
    first: dict[Any, int] = {}
    every = getattr(*place)
    for i, layer in enumerate(every):  # what tells layers apart: the classes inside, and their settings
        inside = [(name, type(module), *_settings(module)) for name, module in layer.named_modules()]
        first.setdefault((*types[i : i + 1], *inside), i)
    return min(len(every), max(2, 1 + max(first.values())))


def _settings(module: nn.Module) -> list[tuple[str, Any]]:
    own = sorted((name, v) for name, v in vars(module).items() if isinstance(v, bool | int | float | str))
    return [(name, value) for name, value in own if not re.search("idx|index|^_", name)]
