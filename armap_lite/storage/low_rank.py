"""What a reward model learned, small enough for a repository: differences from pretrained weights, low-rank, in fp16.

A matrix W that learned is kept as two thin ones, `down` [R, in] and `up` [out, R], with up @ down close to W minus the
pretrained W (the best of rank R: a truncated singular value decomposition). Adapters of rank R could hold the same, but
would have to be trained through all layers; this takes a model that was trained as usual.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

UP, DOWN = "@up", "@down"


def split(learned: Mapping[str, Tensor], pretrained: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """The tensors `learned` in fp16, with two thin ones for each matrix to which `rank` makes a difference.

    `pretrained`: those that were there before training; a matrix that is not among them was made anew and stays whole.
    Raises ValueError where fp16 cannot hold a number.
    """
    found = {}
    for name, tensor in learned.items():
        wide = tensor.float()
        if name in pretrained and wide.ndim == 2 and rank * sum(wide.shape) < wide.numel():
            left, values, right = torch.linalg.svd(wide - pretrained[name].float(), full_matrices=False)
            scale = values[:rank].sqrt()
            found[name + UP] = (left[:, :rank] * scale).half()  # [out, R]
            found[name + DOWN] = (scale[:, None] * right[:rank]).half()  # [R, in]
        else:
            found[name] = wide.half()
    if odd := [name for name, tensor in found.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{odd[0]} has numbers that half precision cannot hold; keep the model as it is")
    return found


def join(tensors: Mapping[str, Tensor], pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` as `split` left them, with each matrix whole again; others are returned as they are."""
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith((UP, DOWN))}
    for name in (key.removesuffix(UP) for key in tensors if key.endswith(UP)):
        if name in pretrained and name + DOWN in tensors:
            more = tensors[name + UP].float() @ tensors[name + DOWN].float()
            found[name] = pretrained[name].float() + more.to(pretrained[name].device)
    return found
