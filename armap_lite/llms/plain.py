"""The plain engine: whole sequences through the model's own forward pass, for models that the forest cannot run."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from armap_lite.llms import layers
from armap_lite.llms.device import say_once
from armap_lite.llms.forest import Forest, RefusedError
from armap_lite.llms.tree import Engine, Hidden, Logits, Node, Read, check_numbers

BATCH = 16  # texts in one forward pass of `score_whole`


class Plain(Engine):
    """Runs whole sequences in batches of at most `pack` tokens, padded on the right; a causal model needs no mask.

    Where texts grow by single tokens (`generate`), transformers' own cache continues those of the call before, up to
    `capacity` tokens.
    """

    def __init__(self, model: Any, capacity: int = 16384, pack: int = 512):
        self.pack, self.capacity = pack, capacity
        self.even = length_matters(model)  # only sequences of one length in a batch
        self.keeps = False  # set where the model's cache was seen to work (see `engine`)
        super().__init__(model)

    def clear(self) -> None:
        super().clear()
        self._kept: dict[Node, tuple[Any, int]] = {}  # ends of the call before: their cache, and their row in it

    def compute(self, wanted: Sequence[Node], read: Read) -> None:
        todo = dict.fromkeys(wanted)
        above = {up for node in todo for up in node.path()[:-1]}
        grows = self.keeps and not any(node in above for node in todo)  # as texts that are being written do
        before, self._kept = self._kept, {}
        if grows:
            self._continue(todo, before, read)
        rows = sorted((node.path() for node in todo if node not in above), key=len)
        for batch in self._batches(rows, self.even or grows):
            asked: dict[Node, int] = {}  # and its place in the batch
            width = len(batch[-1])
            for i, path in enumerate(batch):
                for node in path:
                    if node in todo:
                        asked[node] = i * width + node.depth
                        del todo[node]
            ids = [[node.token for node in path] + [0] * (width - len(path)) for path in batch]
            cache = None
            if grows and sum(node.depth + 1 for node in self._kept) + width * len(batch) <= self.capacity:
                cache = DynamicCache(config=self.model.config.get_text_config())
            self._run(ids, asked, cache, read)
            self.tokens_computed += sum(map(len, batch))

    def _continue(self, todo: dict[Node, None], before: dict[Node, tuple[Any, int]], read: Read) -> None:
        """Compute those of `todo`, and take them out, that follow an end of the call before by one token."""
        groups: dict[int, list[Node]] = {}
        for node in todo:
            if node.parent in before:
                groups.setdefault(id(before[node.parent][0]), []).append(node)
        for nodes in groups.values():
            if sum(node.depth + 1 for node in [*nodes, *self._kept]) > self.capacity:
                continue
            old = [before[node.parent] for node in nodes]  # type: ignore[index]
            with torch.inference_mode():
                old[0][0].reorder_cache(torch.tensor([row for _, row in old], device=self.device))
            self._run([[node.token] for node in nodes], {node: i for i, node in enumerate(nodes)}, old[0][0], read)
            self.tokens_computed += len(nodes)
            for node in nodes:
                del todo[node]

    def _run(self, ids: list[list[int]], asked: dict[Node, int], cache: Any, read: Read) -> None:
        """One forward pass on `ids` [B, T]; with a `cache` the B ends are kept, in the order of `asked`."""
        inputs = {"input_ids": torch.tensor(ids, device=self.device), "use_cache": cache is not None}
        if cache is not None:
            inputs["past_key_values"] = cache
        with torch.inference_mode():
            places = torch.tensor(list(asked.values()), device=self.device)
            read(list(asked), self._call(places, inputs))
        if cache is not None:
            self._kept.update((node, (cache, row)) for row, node in enumerate(asked))

    def _batches(self, rows: list[list[Node]], even: bool) -> Iterator[list[list[Node]]]:
        batch: list[list[Node]] = []
        for path in rows:  # from short to long
            if batch and ((len(batch) + 1) * len(path) > self.pack or (even and len(path) != len(batch[0]))):
                yield batch
                batch = []
            batch.append(path)
        if batch:
            yield batch


class PlainLogits(Logits, Plain):
    """Next-token log-probabilities by plain forward passes."""


class PlainHidden(Hidden, Plain):
    """Last hidden states by plain forward passes."""


def score_whole(network: Any, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Rewards [B] of `rows` of token ids, in batches of equal length: some encoders also read padding.

    `network`: `forward(input_ids [B, T], attention_mask [B, T]) -> rewards [B]`.
    """
    found = np.empty(len(rows))
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        by_length[len(row)].append(i)
    for alike in by_length.values():
        for batch in (alike[k : k + BATCH] for k in range(0, len(alike), BATCH)):
            ids = torch.tensor([rows[i] for i in batch], device=next(network.parameters()).device)  # [B, T]
            with torch.inference_mode():
                found[batch] = network(ids, torch.ones_like(ids)).cpu().numpy()  # [B]
    check_numbers(network.backbone, found)
    return found


def length_matters(model: Any) -> bool:
    """Whether the rotary frequencies, and so all keys, depend on the length of the text."""
    types = (str(getattr(module, "rope_type", "")) for module in model.modules())  # where it is a dict, of each kind
    return any("longrope" in some or "dynamic" in some for some in types)


def mask_is_needless(backbone: Any) -> bool:
    """Whether what stands to the right of a token changes nothing: without a mask, PyTorch may attend faster."""
    device, training = next(backbone.parameters()).device, backbone.training
    ids = torch.arange(3, 19, device=device).view(2, 8)  # [B, T]
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    backbone.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            masked, plain = (  # [N, H] each
                backbone(input_ids=ids, attention_mask=some, use_cache=False).last_hidden_state[mask > 0]
                for some in (mask, None)
            )
    finally:
        backbone.train(training)
    return torch.allclose(masked, plain, rtol=1e-3, atol=1e-3 * float(masked.abs().max()))


# The check.

WINDOW = 5
CLOSE = {torch.float32: 1e-3, torch.float16: 2e-2}  # relative error that rounding may cause; in bf16 0.1


class BothSidesError(ValueError):
    """A model that is not causal: what it computes at a token depends on the tokens to the right."""


def engine(
    fast: type[Forest], slow: type[Plain], model: Any, name: str, capacity: int | None = None, pack: int | None = None
) -> Any:
    """`fast` over `model` where it computes what the model computes, else `slow`, and one line on stderr says why.

    `capacity` and `pack`: None takes `sizes`. Raises ValueError where they are not positive integers, and
    BothSidesError for a bidirectional model, which neither engine can run.
    """
    for option, value in (("capacity", capacity), ("pack", pack)):
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{option}={value!r} is not a whole number of 1 or more; it counts tokens")
    trial = fast(model, capacity=64, pack=64)
    why = differs(trial, slow(model), model)
    config = model.config.get_text_config()
    share = config.num_hidden_layers / max(1, len(trial.pools))
    token_bytes = sum(pool[0].nbytes for pool in trial.pools.values()) * share
    room = sizes(trial.device, token_bytes, getattr(config, "vocab_size", 0))
    options = {"capacity": capacity or room[0], "pack": pack or room[1]}
    if why is None:
        return fast(model, **options)
    chosen = slow(model, **options)
    kind = f"{name}: {type(model).__name__}"
    if _sees_right(model):
        raise BothSidesError(
            f"{kind} reads text from both sides: it is no decoder-only model; "
            "give one that writes from left to right, such as a Llama, a Qwen or smollm2-135m-instruct"
        )
    say_once(f"{kind} runs on the plain path, which is slower (it shares no prefixes): {why}")
    chosen.keeps = not chosen.even and _continues(slow, model)
    return chosen


def sizes(device: torch.device, token_bytes: float, vocabulary: int) -> tuple[int, int]:
    """Capacity of the pool and tokens in one pass.

    On CUDA: a quarter of the free memory for keys and values, and a tenth for the logits of a pass (three fp32
    copies), because reward model and training use the same device.
    """
    if device.type != "cuda":
        return 16384, 512
    free = torch.cuda.mem_get_info(device)[0]
    pack = min(8192, max(512, int(free / 10 / (12 * max(vocabulary, 1))) // 64 * 64))
    return min(262_144, max(2 * pack, int(free / 4 / max(token_bytes, 1)))), pack


def differs(trial: Forest, plain: Plain, model: Any) -> str | None:
    """Why the forest must not be used for `model`; None where it says what plain forward passes say of a small tree."""
    if length_matters(model):
        return "its rotary frequencies depend on the length of the text"
    try:
        with _shrunk(model) as count:
            expected, got = _read(plain), _read(trial)  # [N, X] each
    except RefusedError as error:
        return str(error)
    except Exception as error:  # whatever a model of another build makes of a forest's pass
        return f"it cannot share prefixes ({type(error).__name__}: {' '.join(str(error).split())[:160]})"
    if len(trial.pools) != count:
        return f"{count - len(trial.pools)} of {count} layers are not attention over keys and values"
    off = float(_errors(expected, got).max())
    same = off <= _limit(model)
    return None if same else f"with shared prefixes it computes something else (relative error {off:.2g})"


def _texts(model: Any) -> tuple[list[int], list[int], list[int]]:
    """The tokens of a beginning and of two continuations; short ones for a model with few positions."""
    rng = random.Random(0)
    words = [rng.randrange(model.config.get_text_config().vocab_size) for _ in range(30)]
    room = min(filter(None, layers.context(model)), default=22)
    head = 12 if room >= 22 else max(1, room // 2)
    return words[:head], words[12:20][: room - head], words[20:][: room - head]


def _errors(expected: Tensor, got: Tensor) -> Tensor:
    """The relative error (root mean square) of each row of [N, X] -> [N]."""
    return ((got - expected).pow(2).mean(-1) / expected.pow(2).mean(-1)).sqrt()


def _limit(model: Any) -> float:
    return CLOSE.get(next(model.parameters()).dtype, 0.1)


def _read(engine: Engine) -> Tensor:
    """What `engine` says at the nodes of a small tree [N, X]: at the end of a beginning, and all along two branches."""
    beginning, *tails = _texts(engine.model)
    start = engine.add(beginning)
    engine.compute([start], lambda *_: None)
    ends = [engine.add(tail, start) for tail in tails]
    nodes = [start, *(node for end in ends for node in end.path()[len(beginning) :])]
    found: dict[Node, Tensor] = {}
    engine.compute(nodes, lambda asked, table: found.update(zip(asked, table)))
    return torch.stack([found[node] for node in nodes])


def _sees_right(model: Any) -> bool:
    """Whether tokens on the right change the output at most of the tokens before them.

    A row is read alone (where the length does not matter) and with two continuations. The median over tokens ignores
    single ones that rounding sends to other experts.
    """
    device, (beginning, first, second) = next(model.parameters()).device, _texts(model)
    found: list[Tensor] = []  # [tokens of the beginning, X] for each continuation
    for tail in ([], first, second[: len(first)])[length_matters(model) :]:
        with torch.inference_mode():
            said = model(input_ids=torch.tensor([[*beginning, *tail]], device=device), use_cache=False)
        table = said.logits if hasattr(said, "logits") else said.last_hidden_state  # [1, T, X]
        found.append(table[0, : len(beginning)].float())
    return any(float(_errors(found[0], other).median()) > _limit(model) for other in found[1:])


def _continues(slow: type[Plain], model: Any) -> bool:
    """Whether transformers' cache, and a token behind it, say what a whole text says."""
    beginning, tail, _ = _texts(model)
    found = []
    try:
        with _shrunk(model):
            for keeps in (False, True):
                engine = slow(model)
                engine.keeps = keeps
                start = engine.add([*beginning, *tail][:-2])
                for some in ([start], [start.child(3), start.child(5)], [start.child(3).child(7)]):
                    engine.compute(some, lambda nodes, table: found.append(table[-1]))
    except Exception:  # its cache is of another kind
        return False
    return float(_errors(torch.stack(found[:3]), torch.stack(found[3:])).max()) <= _limit(model)


@contextmanager
def _shrunk(model: Any) -> Iterator[int]:
    """Within, the model has only the layers that contain each kind of layer, as many as this yields, and attention
    sees `WINDOW` tokens wherever it has a window or a chunk: so the check takes milliseconds.
    """
    few = layers.kinds(model)
    undo = layers.cut(model, few) if few else lambda: None
    config = model.config.get_text_config()
    with ExitStack() as stack:
        stack.callback(undo)
        for name in ("sliding_window", "attention_chunk_size"):
            some = [place for place in (config, *model.modules()) if isinstance(vars(place).get(name), int)]
            stack.enter_context(layers.replaced(some, name, WINDOW))
        yield config.num_hidden_layers
