"""From a picture's features to vectors like those of words: a projector, and how a new one is initialised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from armap_lite.llms.tokens import LineTokenizer


class WordProjector(nn.Module):
    """VILA's layers, but each token is computed from the whole picture: features [..., K, C] -> vectors [..., K, H].

    So the first token can name a colour and the second a pattern, as words in a caption do (see `align`).
    """

    def __init__(self, tokens: int, size: int, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.first = nn.Linear(tokens * size, hidden)
        self.last = nn.Linear(hidden, tokens * hidden)

    def forward(self, features: Tensor) -> Tensor:
        seen = self.first(self.norm(features).flatten(-2))  # [..., H]
        return self.last(nn.functional.gelu(seen)).unflatten(-1, (features.shape[-2], -1))  # [..., K, H]

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Make `first` read standardised `features` [P, K, C]: what all pictures share would dominate otherwise."""
        seen = self.norm(features).flatten(1)  # [P, K * C]
        self.first.weight.div_(seen.std(0).clamp(min=seen.std(0).mean() / 10))
        self.first.bias.sub_(self.first.weight @ seen.mean(0))


def align(
    projector: WordProjector, features: Tensor, captions: Sequence[str], words: Tensor, lines: LineTokenizer
) -> None:
    """Initialise `projector` so that a picture's tokens are the words of its caption, in order.

    features [P, K, C] of pictures, a caption of each, words [V, H]: the language model's embedding, which already
    compares words with the instruction. VILA's first stage does the same through the language model's loss; this is
    least squares on embeddings.
    """
    words = words.detach().float()
    wanted = spelled([list(dict.fromkeys(lines(text))) for text in captions], words, features.shape[1])  # [P, K, H]
    projector.standardise(features)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=1e-3)
    random, spread = torch.Generator().manual_seed(0), words.std()
    for _ in range(300):
        some = torch.randperm(len(wanted), generator=random)[:128]
        loss = (projector(features[some]) - wanted[some]).pow(2).mean() / spread**2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()


def spelled(tokens: Sequence[Sequence[int]], words: Tensor, count: int) -> Tensor:
    """The first `count` words of each picture's caption [P, count, H]; the last one sums up all that follow.

    Captions with fewer words are filled with the mean of all captions' words.
    """
    nothing = words[sorted({token for caption in tokens for token in caption})].mean(0)  # [H]
    rows = []
    for caption in tokens:
        parts = [caption[k : k + 1] for k in range(count - 1)] + [caption[count - 1 :]]
        rows.append(torch.stack([nothing + (words[list(part)] - nothing).sum(0) for part in parts]))
    return torch.stack(rows)  # [P, count, H]
