"""Text to tokens, line by line: a text that grew by a line keeps the tokens it had."""

from __future__ import annotations

import functools
from typing import Any


class LineTokenizer:
    """Tokenises each line on its own, with its newline; `start` (bos, or eos where there is none) comes first."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.start: int = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        self._line = functools.lru_cache(65536)(self._encode)
        self.newline = self._line("\n")[-1]

    def _encode(self, line: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(line, add_special_tokens=False)["input_ids"])

    def __call__(self, text: str) -> list[int]:
        """Token ids of `text`, without `start`."""
        return [t for line in text.splitlines(keepends=True) for t in self._line(line)]
