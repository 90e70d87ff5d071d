"""From what a picture shows to something like words: a projector, and how a new one begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from armap_lite.tokens import LineTokenizer


class WordProjector(nn.Module):
    """VILA's layers, but each token is written from the whole picture: features [..., K, C] -> vectors [..., K, H].

    So the first can say a colour and the second a pattern, as a row of words does (see `align`).
    """

    def __init__(self, tokens: int, size: int, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.first = nn.Linear(tokens * size, hidden)
        self.last = nn.Linear(hidden, tokens * hidden)

    def forward(self, features: Tensor) -> Tensor:
        seen = self.first(self.norm(features).flatten(-2))
        return self.last(nn.functional.gelu(seen)).unflatten(-1, (features.shape[-2], -1))

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Let `first` see how `features` [P, K, C] differ: what all pictures share would drown it."""
        seen = self.norm(features).flatten(1)  # [P, K * C]
        self.first.weight.div_(seen.std(0).clamp(min=seen.std(0).mean() / 10))
        self.first.bias.sub_(self.first.weight @ seen.mean(0))


def align(
    projector: WordProjector,
    features: Tensor,
    texts: Sequence[Sequence[str]],
    words: Tensor,
    lines: LineTokenizer,
    captions: bool = False,
    steps: int = 300,
) -> None:
    """Bring `projector` to where words mean what pictures show.

    features [P, K, C] of pictures, the texts about each, words [V, H]: the language model's embedding. From there it
    compares a picture with the instruction as it compares words, which it can already. VILA's first stage does the
    same by way of the language model's loss; here it is least squares on embeddings.
    `captions`: a text says what its picture shows and no more; then a picture's tokens become its words, in order.
    Otherwise texts say much that no picture shows: each token becomes the sum of what can be told (see `summed`).
    """
    words = words.detach().float()
    tokens = [[list(dict.fromkeys(lines(text))) for text in some] for some in texts]
    wanted = spelled(tokens, words, features.shape[1]) if captions else summed(tokens, words, features)  # [P, K, H]
    projector.standardise(features)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=1e-3)
    random, spread = torch.Generator().manual_seed(0), words.std()
    for _ in range(steps):
        some = torch.randperm(len(wanted), generator=random)[:128]
        loss = (projector(features[some]) - wanted[some]).pow(2).mean() / spread**2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    if not captions:  # what is told half of the time was learned at half its size: pictures shall differ as words do
        with torch.no_grad():
            shown, last = projector(features), projector.last  # [P, K, H]
            middle = shown.mean(0)  # [K, H]
            gain = spread / (shown - middle).pow(2).mean().sqrt().clamp(min=1e-6)
            last.weight.mul_(gain)
            last.bias.sub_(middle.flatten()).mul_(gain)


def spelled(tokens: Sequence[Sequence[Sequence[int]]], words: Tensor, count: int) -> Tensor:
    """The first `count` words of each picture's caption [P, count, H]; the last of them stands for all that is left.

    Where a caption has fewer, what stands there is the mean of all captions' words.
    """
    nothing = words[sorted({token for texts in tokens for token in texts[0]})].mean(0)  # [H]
    rows = []
    for first, *_ in tokens:
        parts = [first[k : k + 1] for k in range(count - 1)] + [first[count - 1 :]]
        rows.append(torch.stack([nothing + (words[list(part)] - nothing).sum(0) for part in parts]))
    return torch.stack(rows)


def summed(tokens: Sequence[Sequence[Sequence[int]]], words: Tensor, features: Tensor) -> Tensor:
    """For each token of a picture the same [P, K, H]: the sum of words, each as far as pictures tell it (`visible`)."""
    vocabulary = sorted({token for texts in tokens for text in texts for token in text})  # [W]
    shares = [Counter(token for text in texts for token in text) for texts in tokens]
    said = torch.tensor([[n[w] / len(t) for w in vocabulary] for n, t in zip(shares, tokens)])  # [P, W]
    said = (said - said.mean(0)).to(words.device)
    wanted = said * visible(features.mean(1), said) @ words[vocabulary]  # [P, H]
    wanted = wanted / wanted.std().clamp(min=1e-6) * words.std()
    return wanted[:, None].expand(-1, features.shape[1], -1)


def visible(features: Tensor, said: Tensor) -> Tensor:
    """How much of each word pictures tell, 0 to 1: squared correlation of what ridge regression foretells, and is so.

    features [P, C], said [P, W] (how often each picture's texts say a word, centred) -> [W]. Each fifth of the
    pictures is foretold from the others.
    """
    x = features - features.mean(0)
    alike = x @ x.T  # [P, P]
    alike = alike / alike.diagonal().mean().clamp(min=1e-6)
    guess = torch.zeros_like(said)
    for fold in range(5):
        out = torch.arange(len(x), device=x.device) % 5 == fold
        known = alike[~out][:, ~out]
        guess[out] = alike[out][:, ~out] @ torch.linalg.solve(known + 0.1 * torch.eye(len(known)).to(known), said[~out])
    return torch.cosine_similarity(guess, said, dim=0).clamp(min=0) ** 2
