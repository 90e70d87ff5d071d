"""Text to tokens, piece by piece: a text that grew by a line keeps the tokens it had."""

import functools
import itertools
import re
from collections.abc import Sequence
from typing import Any

Tokens = tuple[int, ...]

# What prompts consist of: lines with and without punctuation at their end, blank lines, brackets, numbers, indents.
PROBES = (
    "Task: boil the water.\nAction: open door\n",
    "Use 1 4 8 8 (to obtain 24).\n\n8 * 4 = 32\nclick[buy now]\nleft: 4, 8\n",
    "In it, you see: a cup | $10.00!\n\n\nWhat now?\n",
    "You see: \n  a cup\n\tthe door\n \n\nWhat now?\n",
    "x  \n\n y\n\n  z\r\n\r\n- a\r\n",
)
# After each newline that stands alone: in a run of white space, tokens may reach over the end of the line.
BORDER = re.compile(r"(?<=\S\n)(?=\S)")


class LineTokenizer:
    """Tokenises a text in the smallest pieces that give the tokens of the whole text.

    A piece is a line with the blank and indented lines that follow; or the whole text, where each piece would get a
    blank in front (SentencePiece). `start` is the token before the first word: bos, or eos. Raises ValueError without.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        starts = [i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None]
        if not starts:
            raise ValueError(
                f"the tokenizer of {getattr(tokenizer, 'name_or_path', '') or 'this model'!r} has neither a bos nor an "
                "eos token, and a text needs one in front; set `tokenizer.bos_token` and save it to the model's folder"
            )
        self.start: int = starts[0]
        self._piece = functools.lru_cache(65536)(self._encode)
        self._line = functools.lru_cache(65536)(lambda text: (*self(text),))
        self._tails = functools.lru_cache(1024)(self._continue)
        self._by_line = True
        self._by_line = all(tuple(self(text)) == self._encode(text) for text in PROBES)
        self.newline = self._piece("a\n")[-1]

    def _encode(self, piece: str) -> Tokens:
        return tuple(self.tokenizer(piece, add_special_tokens=False)["input_ids"])

    def __call__(self, text: str) -> list[int]:
        """Token ids of `text`, without `start`."""
        pieces = BORDER.split(text) if self._by_line else [text]
        return [t for piece in pieces if piece for t in self._piece(piece)]

    def after(self, prompt: str, options: Sequence[str]) -> tuple[list[int], tuple[Tokens, ...]]:
        """Token ids of `prompt`, without `start`, and of each of `options` after it, with a newline at its end.

        Where a token would reach from the prompt into an option, the prompt's ids end before it.
        """
        head = self(prompt)
        apart = self._by_line and re.search(r"\S\n\Z", prompt)
        line = "" if apart else prompt[prompt.rstrip().rfind("\n") + 1 :]
        tails = self._tails(tuple(options), line)
        if tails is not None:
            return head, tails
        whole = [self(f"{prompt}{option}\n") for option in options]
        same = sum(1 for _ in itertools.takewhile(lambda ids: len({*ids}) == 1, zip(head, *whole)))
        return head[:same], tuple(tuple(ids[same:]) for ids in whole)

    def _continue(self, options: tuple[str, ...], line: str) -> tuple[Tokens, ...] | None:
        """Token ids of `options` after `line`, the prompt's last; None where a token reaches over the border."""
        if not line and any(f"{option}\n"[0].isspace() for option in options):
            return None
        head = self._line(line)
        whole = [self._line(f"{line}{option}\n") for option in options]  # most options were there a step before
        if any(ids[: len(head)] != head for ids in whole):
            return None
        return tuple(ids[len(head) :] for ids in whole)
