"""From a picture's features to vectors like those of words: a projector, and how a new one is initialised."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from armap_lite.llms.tokens import LineTokenizer
from armap_lite.storage.store import caption

FEWEST = 10  # pictures to align a projector with: there is nothing to learn from fewer


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


def align_to_captions(
    embedding: Any, pictures: Sequence[str], lines: LineTokenizer, device: torch.device, begun: bool
) -> bool:
    """Align the new projector of the `PictureEmbedding` with captions; False where too few of `pictures` have one.

    `begun`: it is aligned already, and comes with a checkpoint. `device`: where the tower computes.
    """
    about = {picture: f" {text}" for picture in pictures if (text := caption(picture))}  # the blank words begin with
    if len(about) < FEWEST:
        return False
    if not begun:
        words = embedding.words.weight
        numbers = [embedding.pictures.number(picture) for picture in about]
        features = embedding.pictures.features(numbers, device).to(words.device)  # [P, K, C]
        align(embedding.projector, features, list(about.values()), words, lines)
    return True


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
    nothing = words[sorted({token for text in tokens for token in text})].mean(0)  # [H]
    rows = []
    for text in tokens:
        parts = [text[k : k + 1] for k in range(count - 1)] + [text[count - 1 :]]
        rows.append(torch.stack([nothing + (words[list(part)] - nothing).sum(0) for part in parts]))
    return torch.stack(rows)  # [P, count, H]
