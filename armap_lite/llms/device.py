"""Where a model runs, and in which number format."""

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from armap_lite.llms.layers import replaced

LARGE = 50_000_000  # parameters; below, fp32 is cheap, and rewards may differ by less than bf16 resolves


def pick(device: str = "auto", dtype: str = "auto") -> tuple[torch.device, torch.dtype]:
    """The device and dtype to load a model with.

    `device`: "auto" (CUDA where there is one, else the CPU), or a torch name such as "cuda:1".
    `dtype`: "float32", "bfloat16", "float16", or "auto": bfloat16 where the device computes in it, else float16 on
    CUDA and float32 on a CPU. Raises ValueError for any other dtype, and for a device that is not there.
    """
    try:
        where = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}; use 'auto', 'cpu', 'cuda' or 'cuda:1'") from None
    if where.type == "cuda" and (where.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(f"device {device!r} is not there: PyTorch finds {count} CUDA devices; use 'auto' or 'cpu'")
    if where.type == "cuda":
        without_cudnn_attention()
    if dtype == "auto":
        if where.type == "cuda":
            return where, torch.bfloat16 if cuda_has_bfloat16(where) else torch.float16
        # torch keeps these two private; a CPU without the instructions emulates bfloat16, slower than float32
        probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
        return where, torch.bfloat16 if any(probe() for probe in probes if probe) else torch.float32
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"unknown dtype {dtype!r}; use 'auto', 'float32', 'bfloat16' or 'float16'")
    return where, getattr(torch, dtype)


def without_cudnn_attention() -> None:
    """Keep PyTorch from cuDNN's attention: it takes 20 to 400 ms for each new shape, and here nearly all are new."""
    torch.backends.cuda.enable_cudnn_sdp(False)


def cuda_has_bfloat16(where: torch.device) -> bool:
    """Whether the GPU computes in bfloat16 (NVIDIA: Ampere and later); where it does not, stderr says so once."""
    found = bool(torch.version.hip) or torch.cuda.get_device_capability(where) >= (8, 0)
    if not found:
        say_once(f"{torch.cuda.get_device_name(where)} does not compute in bfloat16: float16 is used instead")
    return found


def load_to(device: str, dtype: str, make: Callable[[Any], Any]) -> Any:
    """The reward network that `make` loads on the CPU in a given dtype, with its backbone in `dtype`, on `device`.

    "auto" is bf16 on CUDA (fp16 where the card has no bf16) for backbones of `LARGE` parameters and more, else fp32.
    The head is always in fp32. So are buffers: with rotary frequencies rounded to bf16, positions far into a text would
    be wrong.
    """
    where, kind = pick(device, "float32" if dtype == "auto" else dtype)
    stored = dtype == "auto" and where.type == "cuda"  # in fp32, 8B parameters would take 32 GB of memory first
    network = make("auto" if stored else kind)
    if stored and sum(p.numel() for p in network.backbone.parameters()) >= LARGE:
        kind = pick(str(where))[1]
    for parameter in network.backbone.parameters():
        parameter.data = parameter.data.to(kind)
    if network.pictures:  # a picture's features come in fp32
        network.backbone.get_input_embeddings().projector.float()
    if network.head is not None:
        network.head.float()
    return network.to(where)


def bfloat16_products() -> AbstractContextManager[None]:
    """Within, a CPU rounds the factors of fp32 matrix products to bfloat16; sums stay fp32.

    Exact where the factors are bfloat16 numbers, and then about twice as fast.
    """
    return replaced([torch.backends.mkldnn.matmul], "fp32_precision", "bf16")  # type: ignore[attr-defined]


@functools.cache
def say_once(text: str) -> None:
    """Print `text` on stderr, once in this process."""
    print(text, file=sys.stderr)
