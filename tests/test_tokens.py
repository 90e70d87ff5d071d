"""Text to tokens: a piece at a time gives the tokens of the whole, whatever the tokenizer does between lines."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import seeded, tiny_config
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from armap_lite.llms.local import LocalLM
from armap_lite.llms.tokens import BORDER, LineTokenizer

TEXT = [
    "Use the numbers (1 4).\n\n8 * 4 = 32\nclick[buy now]\n\n\nUse the door\nopen door!\n\n 8 * 4:\n  8\n \n\n"
] * 20
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def trained(tokenizer: Tokenizer, alphabet: list[str] | None = None) -> PreTrainedTokenizerFast:
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<bos>", "<eos>", "<unk>"],
        initial_alphabet=alphabet or sorted({*"".join(TEXT), "▁"} - {" "}),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")


@functools.cache
def made(kind: str) -> PreTrainedTokenizerFast:
    """Tokenizers built as those of well-known models are."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if kind == "gpt2":  # white space before a word is cut off from all that stands before it
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return trained(tokenizer, sorted(pre_tokenizers.ByteLevel.alphabet()))
    if kind == "llama3":  # newlines, and what stands before them, are one token
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        return trained(tokenizer, sorted(pre_tokenizers.ByteLevel.alphabet()))
    if kind == "llama2":  # a blank in front of each text, no other border; newlines join what follows
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁[^▁]*"), "isolated")
    else:  # mistral: the same by its pre-tokenizer
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return trained(tokenizer)


KINDS = ["gpt2", "llama3", "llama2", "mistral"]
lines = st.lists(
    st.sampled_from(
        [
            "Use the numbers (1 4).",
            "8 * 4 = 32",
            "click[buy now]",
            "open door!",
            "Use",
            "8 ",
            "",
            "  8 * 4",
            "\topen",
            " ",
            "door  ",
            "4\r",
            "\r",
        ]
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@example(["8"], "", ["", "8"])
@given(lines, st.sampled_from(["", "8", "Use the num", "open:", "8 * ", " "]), lines)
def test_pieces_have_the_tokens_of_the_whole_text(kind: str, some: list[str], end: str, more: list[str]):
    tokenizer, pieces = made(kind), LineTokenizer(made(kind))
    text = "".join(f"{line}\n" for line in some) + end
    options = [*dict.fromkeys(more)]
    assert pieces(text) == tokenizer(text, add_special_tokens=False)["input_ids"]
    head, tails = pieces.after(text, options)
    for option, tail in zip(options, tails):
        whole = tokenizer(f"{text}{option}\n", add_special_tokens=False)["input_ids"]
        assert [*head, *tail] == whole


@pytest.mark.parametrize("kind", KINDS)
def test_choices_are_weighed_as_they_stand_in_the_whole_text(kind: str):
    tokenizer = made(kind)
    config = tiny_config()
    config.vocab_size = len(tokenizer)
    lm = LocalLM(seeded(0, lambda: LlamaForCausalLM(config)), tokenizer)
    options = ["8 * 4 = 32", "open door!", "8"]
    for prompt in ("Use the numbers (1 4).\n", "8\n\nclick[buy now]\n\n", "8:\n  8\n", "open", ""):
        [found] = lm.choose([prompt], [options], None)
        np.testing.assert_allclose([c.logprob for c in found], by_definition(lm, prompt, options), atol=1e-3)
        [drawn] = lm.choose([prompt], [options], None, decoding="token")
        assert sum(np.exp(c.logprob) for c in drawn) == pytest.approx(1)


def by_definition(lm: LocalLM, prompt: str, options: list[str]) -> np.ndarray:
    """The probability of each whole text, one forward pass for each."""
    logp = []
    for option in options:
        head, [tail] = lm.lines.after(prompt, [option])
        whole = torch.tensor([[lm.lines.start, *head, *tail]])
        with torch.inference_mode():
            table = lm.model(whole, use_cache=False).logits[0].double().log_softmax(-1)
        logp.append(sum(float(table[i, token]) for i, token in enumerate(whole[0, 1:].tolist())))
    return np.array(logp) - np.logaddexp.reduce(logp)


def test_a_line_is_a_piece_only_where_that_changes_nothing():
    grown = "Use the door\n8 * 4 = 32\n\nopen:\n  door\nUse"
    assert len(BORDER.split(grown)) == 3
    for kind, by_line in (("gpt2", True), ("llama3", True), ("llama2", False), ("mistral", False)):
        assert LineTokenizer(made(kind))._by_line == by_line, kind


def test_a_tokenizer_without_a_first_token_is_refused():
    bare = PreTrainedTokenizerFast(tokenizer_object=made("gpt2")._tokenizer)
    with pytest.raises(ValueError, match="neither a bos nor an eos token.*set `tokenizer.bos_token`"):
        LineTokenizer(bare)
