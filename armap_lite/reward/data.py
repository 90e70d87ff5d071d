"""Batches of preference pairs: split by task, bucketed by length, in the same order on every run and after a resume."""

import functools
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from armap_lite.llms.memory import CUDA_MULTIPLE
from armap_lite.llms.tokens import LineTokenizer
from armap_lite.trajectory import PreferencePair
from armap_lite.vision.pictures import Pictures, encode

Pairs = list[PreferencePair]
Tokens = tuple[list[int], list[int]]  # chosen, rejected


class PairDataModule(L.LightningDataModule):
    """Tokenised pairs, `val_fraction` of the *tasks* kept aside for validation.

    Each batch is a dict of `input_ids` and `attention_mask`, [2B, T]: the B chosen first, then their B rejected,
    padded on the right to the longest of them. On CUDA the length is a multiple of 64, so that few shapes occur, and
    worker processes collate into pinned memory.
    """

    def __init__(
        self,
        pairs: Sequence[PreferencePair],
        tokenizer: Any,
        *,
        batch_size: int = 8,
        epochs: int = 1,
        max_tokens: int = 512,
        val_fraction: float = 0.2,
        seed: int = 0,
        pictures: Pictures | None = None,
    ):
        super().__init__()
        self.batch_size, self.epochs, self.seed = batch_size, epochs, seed
        lines = LineTokenizer(tokenizer)
        # padding is masked: any token will do
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else lines.start
        self.done = 0  # training batches that were done before a resume
        unseen = 0 if pictures else sum(bool(p.chosen.pictures or p.rejected.pictures) for p in pairs)
        if unseen and not rank_zero_only.rank:
            print(f"{unseen} of {len(pairs)} pairs have pictures, which only --vision reads", file=sys.stderr)
        tokens: dict[int, Tokens] = {}  # by the pair's identity: one pair may come twice
        kept = []
        self.shortened = 0
        for pair in pairs:
            sides = [encode(lines, t, pair.instruction, max_tokens, pictures) for t in (pair.chosen, pair.rejected)]
            tokens[id(pair)] = sides[0][0], sides[1][0]
            if sides[0][0] != sides[1][0]:
                kept.append(pair)
                self.shortened += sum(cut for _, cut in sides)
        self.left_out = len(pairs) - len(kept)
        if self.left_out:
            where, way_out = (" without pictures", "give vision") if unseen else ("", "allow more tokens")
            found = f"{self.left_out} of {len(pairs)} pairs have two equal sides in max_tokens={max_tokens}{where}"
            if not kept:
                raise ValueError(f"{found}, so there is nothing to learn; {way_out}")
            if not rank_zero_only.rank:
                print(f"{found}, and are left out", file=sys.stderr)
        self.train_pairs, self.val_pairs = split_by_task(kept, val_fraction, seed)
        self.train_tokens = [tokens[id(p)] for p in self.train_pairs]
        self.val_tokens = [tokens[id(p)] for p in self.val_pairs]

    def train_dataloader(self) -> DataLoader:
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sizes = [max(map(len, tokens)) for tokens in self.train_tokens]
        sampler = BucketSampler(sizes, self.batch_size, self.epochs, self.seed, world, rank, skip=self.done)
        return self._loader(self.train_tokens, batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader:
        tokens = sorted(self.val_tokens, key=lambda pair: max(map(len, pair)))
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        return self._loader(tokens[rank::world], batch_size=4 * self.batch_size)

    def state_dict(self) -> dict[str, int]:
        return {"done": self.trainer.fit_loop.epoch_loop.batch_progress.current.ready}  # type: ignore[union-attr]

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done = state["done"]

    def _loader(self, rows: list[Tokens], **options: Any) -> DataLoader:
        cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        if cuda:
            options |= {"num_workers": 2, "pin_memory": True, "persistent_workers": True}
        batch = functools.partial(collate, value=self.pad, multiple=CUDA_MULTIPLE if cuda else 1)
        return DataLoader(rows, collate_fn=batch, **options)  # type: ignore[arg-type]


def collate(batch: Sequence[Tokens], value: int, multiple: int = 1) -> dict[str, Tensor]:
    """One batch of pairs. A function of the module, because worker processes import it."""
    return pad([c for c, _ in batch] + [r for _, r in batch], value, multiple)


def pad(rows: Sequence[list[int]], value: int, multiple: int = 1) -> dict[str, Tensor]:
    """Rows of token ids, padded on the right: `input_ids` and `attention_mask`, [B, T], T a multiple of `multiple`."""
    width = -(-max(map(len, rows)) // multiple) * multiple
    ids = torch.tensor([row + [value] * (width - len(row)) for row in rows])  # [B, T]
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])  # [B, T]
    return {"input_ids": ids, "attention_mask": mask}


def split_by_task(pairs: Sequence[PreferencePair], val_fraction: float, seed: int) -> tuple[Pairs, Pairs]:
    """Training and validation pairs; no task has pairs in both. Raises ValueError where one of the two is empty."""
    tasks = sorted({pair.task_id for pair in pairs})
    random.Random(seed).shuffle(tasks)
    aside = set(tasks[: max(1, round(val_fraction * len(tasks)))])
    parts = [p for p in pairs if p.task_id not in aside], [p for p in pairs if p.task_id in aside]
    if not all(parts):
        found = f"{len(pairs)} pairs of {len(tasks)} tasks"
        raise ValueError(f"{found} cannot be split by task with val_fraction={val_fraction}; collect more tasks")
    return parts


class BucketSampler(Sampler[list[int]]):
    """Batches of rows of similar length, reshuffled in each of `epochs`; rank `rank` of `world` gets its share.

    The first `skip` batches are left out: those done before a resume.
    """

    def __init__(
        self, sizes: Sequence[int], batch_size: int, epochs: int, seed: int, world: int, rank: int, skip: int = 0
    ):
        self.batches: list[list[int]] = []
        for epoch in range(epochs):
            rng = random.Random(f"{seed}/{epoch}")
            order = sorted(range(len(sizes)), key=lambda i: (sizes[i] * rng.uniform(0.9, 1.1), rng.random()))
            batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
            rng.shuffle(batches)
            self.batches += batches
        if (n := len(self.batches)) < world:
            raise ValueError(f"{n} batches do not suffice for {world} devices; use fewer, or smaller batches")
        even = n - n % world  # every rank takes the same number of steps
        self.batches = self.batches[rank:even:world]
        self.skip = skip

    def __iter__(self) -> Iterator[list[int]]:
        skip, self.skip = self.skip, 0  # at the first batch: DataLoader with workers asks for two iterators, uses one
        yield from self.batches[skip:]

    def __len__(self) -> int:
        return len(self.batches)
