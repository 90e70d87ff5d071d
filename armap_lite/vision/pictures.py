"""Pictures in the reward model: frozen tower -> cached features -> projector -> K tokens among the words.

In a list of token ids a picture is K pseudo ids: vocabulary + number * K + k. Padding, batching and prefix sharing
treat them like any other id; only the input embedding (`PictureEmbedding`) tells them from words. The tower's features
of a picture are computed once, and cached in memory and on disk.
"""

import dataclasses
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from armap_lite.llms.tokens import LineTokenizer
from armap_lite.storage.assets import cache_dir
from armap_lite.storage.store import write_memo
from armap_lite.trajectory import Trajectory, transcript
from armap_lite.vision.projector import WordProjector

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, standard deviation of red, green, blue
BATCH = 16  # pictures in one pass of the tower


class PictureError(ValueError):
    """A picture that cannot be read; the message is one line that names the file and what to do."""


@dataclasses.dataclass
class Tower:
    """A frozen network that turns pictures into K features of size C each, and the pixels it expects."""

    name: str
    network: nn.Module
    read: Callable[[Tensor], Tensor]  # pixels [B, 3, S, S] -> features [B, K, C]
    side: int
    mean: Sequence[float] = IMAGENET[0]
    std: Sequence[float] = IMAGENET[1]

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)
        self.tokens, self.size = self(torch.ones(1, 3, self.side, self.side)).shape[1:]

    def __call__(self, pixels: Tensor) -> Tensor:
        weight = next(self.network.to(pixels.device).parameters())
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):  # cached for others: always exact
            return self.read(pixels.to(weight.dtype)).float().contiguous()  # [B, K, C]

    def pixels(self, data: bytes) -> Tensor:
        """The whole picture, resized, as [3, S, S]. Raises OSError or ValueError if `data` is none."""
        with Image.open(io.BytesIO(data)) as picture:
            small = picture.convert("RGB").resize((self.side, self.side), Image.Resampling.BICUBIC)
        colours = (np.asarray(small) / 255 - np.array(self.mean)) / np.array(self.std)  # [S, S, 3]
        return torch.from_numpy(colours.astype(np.float32)).permute(2, 0, 1)

    def fingerprint(self) -> str:
        """A hash of weights and settings: features that another tower computed are not used."""
        digest = hashlib.sha256(repr((self.tokens, self.size, self.side, self.mean, self.std)).encode())
        for tensor in self.network.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


class Pictures:
    """Numbers for pictures, and their features: computed by `tower` once, stored in the cache.

    A path keeps its number, and the features of the file that was there when they were first needed.
    """

    def __init__(self, tower: Tower, vocabulary: int):
        self.tower, self.vocabulary = tower, vocabulary
        self.folder = cache_dir() / "pictures" / f"{tower.name}-{tower.fingerprint()}"
        self.paths: list[str] = []  # by number
        self._numbers: dict[str, int] = {}
        self._features: dict[int, Tensor] = {}  # [K, C] each

    def number(self, path: str) -> int:
        """The number of the picture at `path`. Raises PictureError if there is no file."""
        if path not in self._numbers:
            if not Path(path).is_file():
                raise _unreadable(path, "no such file")
            self._numbers[path] = len(self.paths)
            self.paths.append(path)
        return self._numbers[path]

    def ids(self, path: str) -> list[int]:
        """The K pseudo ids of the picture at `path`. Raises PictureError if there is no file."""
        first = self.vocabulary + self.number(path) * self.tower.tokens
        return list(range(first, first + self.tower.tokens))

    def within(self, token: int) -> int:
        """How many tokens of its own picture precede `token`; 0 for a word."""
        return (token - self.vocabulary) % self.tower.tokens if token >= self.vocabulary else 0

    def features(self, numbers: Sequence[int], device: torch.device) -> Tensor:
        """[P, K, C] of the pictures `numbers`, on `device`. Raises PictureError if a file cannot be read."""
        missing = [n for n in numbers if n not in self._features]
        for i in range(0, len(missing), BATCH):
            self._load(missing[i : i + BATCH], device)
        return torch.stack([self._features[n] for n in numbers]).to(device)

    def _load(self, numbers: Sequence[int], device: torch.device) -> None:
        """Features of `numbers` from the disk, or by one pass of the tower."""
        new: list[tuple[int, Path, Tensor]] = []
        for n in numbers:
            try:
                data = Path(self.paths[n]).read_bytes()
                file = self.folder / f"{hashlib.sha256(data).hexdigest()}.safetensors"
                try:
                    self._features[n] = load_file(file)["features"]
                except (OSError, SafetensorError):
                    new.append((n, file, self.tower.pixels(data)))
            except FileNotFoundError as error:
                raise _unreadable(self.paths[n], "no such file") from error
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise _unreadable(self.paths[n], f"it is not a whole picture ({type(error).__name__})") from error
        if new:
            seen = self.tower(torch.stack([pixels for *_, pixels in new]).to(device)).cpu()  # [B, K, C]
            for (n, file, _), features in zip(new, seen):
                self._features[n] = features.clone()  # not a view of the batch
                write_memo(file, save({"features": self._features[n]}))


def _unreadable(path: str, why: str) -> PictureError:
    return PictureError(f"cannot read the picture {path}: {why}; make it again (collecting does), or use vision=None")


class PictureEmbedding(nn.Module):
    """The input embedding of a language model that also reads pictures: ids [B, T] -> [B, T, H]."""

    def __init__(self, words: Any, pictures: Pictures, projector: Any):
        super().__init__()
        self.words, self.projector, self.pictures = words, projector, pictures

    def forward(self, ids: Tensor) -> Tensor:
        seen = ids >= self.pictures.vocabulary  # [B, T]
        embedded = self.words(ids.masked_fill(seen, 0))  # [B, T, H]
        if seen.any():
            place, tokens = ids[seen] - self.pictures.vocabulary, self.pictures.tower.tokens  # [N]
            numbers, row = torch.unique(place // tokens, return_inverse=True)  # [P], [N]
            features = self.pictures.features(numbers.tolist(), ids.device)  # [P, K, C]
            shown = self.projector(features)[row, place % tokens]  # [N, H]
            embedded = embedded.masked_scatter(seen[..., None], shown.to(embedded.dtype))
        elif torch.is_grad_enabled() and torch.distributed.is_available() and torch.distributed.is_initialized():
            # Processes that train together wait for a gradient from each, also from one whose batch has no picture.
            blank = torch.zeros(self.pictures.tower.tokens, self.pictures.tower.size, device=ids.device)
            embedded = embedded + 0 * self.projector(blank).sum().to(embedded.dtype)
        return embedded


def embed_pictures(backbone: Any, tower: Tower, projector: nn.Module | None, max_tokens: int) -> Pictures:
    """Let `backbone` read pictures through `tower` and `projector`; without a projector, a new one learns.

    Raises ValueError where a text of `max_tokens` has no room for a picture.
    """
    if 2 * tower.tokens > max_tokens:
        raise ValueError(
            f"max_tokens={max_tokens} leaves no room for pictures of {tower.tokens} tokens; "
            f"use at least {4 * tower.tokens}"
        )
    words = backbone.get_input_embeddings()
    pictures = Pictures(tower, words.num_embeddings)
    if projector is None:
        projector = WordProjector(tower.tokens, tower.size, words.embedding_dim)
    backbone.set_input_embeddings(PictureEmbedding(words, pictures, projector))
    return pictures


def encode(
    lines: LineTokenizer, trajectory: Trajectory, instruction: str, limit: int, pictures: Pictures | None = None
) -> tuple[list[int], bool]:
    """Token ids of a trajectory, at most `limit`, and whether it was longer and lost its middle.

    The beginning has the instruction, the end the outcome. With `pictures`, each turn's picture follows the text of
    that turn.
    """
    text = transcript(trajectory, instruction)
    ids, read = [lines.start], 0
    for turn, picture in enumerate([trajectory.picture, *(step.picture for step in trajectory.steps)]):
        if picture and pictures:
            end = len(transcript(dataclasses.replace(trajectory, steps=trajectory.steps[:turn]), instruction))
            ids += [*lines(text[read:end]), *pictures.ids(picture)]
            read = end
    ids += lines(text[read:])
    return without_middle(ids, limit, pictures)


def without_middle(ids: list[int], limit: int, pictures: Pictures | None = None) -> tuple[list[int], bool]:
    """The first and last `limit` / 2 of `ids`, and whether there were more; a picture stays whole or goes."""
    if len(ids) <= limit:
        return ids, False
    head, tail = limit - limit // 2, len(ids) - limit // 2
    if pictures:
        head -= pictures.within(ids[head])
        tail += -pictures.within(ids[tail]) % pictures.tower.tokens
    return ids[:head] + ids[tail:], True
