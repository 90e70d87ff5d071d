"""Models that are incomplete, or compute in a way of their own: refused by name, or run as transformers runs them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_export import TEXTS, WALKS
from tiny import seeded, tiny_config, tiny_folder, tiny_lm, tiny_network, tiny_tokenizer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MptConfig,
    MptForCausalLM,
)

from armap_lite import llms, reward
from armap_lite.llms.device import pick
from armap_lite.llms.local import LocalLM
from armap_lite.llms.plain import score_whole
from armap_lite.reward import RewardConfig
from armap_lite.reward.data import PairDataModule
from armap_lite.reward.model import RewardNetwork, build
from armap_lite.reward.scorer import RewardModel
from armap_lite.storage.assets import AssetError
from armap_lite.trajectory import PreferencePair

ENDED = "{% for m in messages %}{{ m.content }}<eos>{% endfor %}"


def classifier(folder: Path, **config: Any) -> str:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = ENDED
    settings = tiny_config(2)
    for name, value in {"num_labels": 1, **config}.items():
        setattr(settings, name, value)
    seeded(3, lambda: LlamaForSequenceClassification(settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def without(folder: str, part: str) -> str:
    """The model in `folder`, once the weights whose names contain `part` are gone."""
    file = Path(folder) / "model.safetensors"
    weights = load_file(file)
    kept = {name: tensor for name, tensor in weights.items() if part not in name}
    assert len(kept) < len(weights)
    save_file(kept, file, {"format": "pt"})
    return folder


def test_a_text_that_ends_in_the_padding_token_is_read_where_transformers_reads_it(tmp_path: Path):
    eos = tiny_tokenizer().eos_token_id
    model = reward.load(classifier(tmp_path, pad_token_id=eos))
    rows = [model.encode(text, walk)[0] for text, walk in zip(TEXTS, WALKS)]
    assert all(row[-1] == eos for row in rows)
    expected = [model.network.model(torch.tensor([row])).logits.item() for row in rows]
    assert model.score(TEXTS, WALKS) == pytest.approx(expected, abs=1e-4)
    assert score_whole(model.network, rows) == pytest.approx(expected, abs=1e-4)


def test_a_model_with_missing_weights_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with pytest.raises(AssetError, match=r"lacks 1 of the weights of a LlamaForSequenceClassification .*score\.weight"):
        reward.load(without(classifier(tmp_path / "headless"), "score"))
    with pytest.raises(AssetError, match="lacks 1 of the weights of a LlamaForCausalLM .*lm_head"):
        llms.load(classifier(tmp_path / "classifier"), device="cpu")
    cut = without(tiny_folder(tmp_path / "cut"), "layers.1.")
    with pytest.raises(AssetError, match="lacks 9 of the weights of a LlamaForCausalLM"):
        llms.load(cut, device="cpu")
    other = Path(tiny_folder(tmp_path / "other"))
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 1}), encoding="utf-8")
    with pytest.raises(AssetError, match=r"lacks \d of the weights of a LlamaForCausalLM .*embed_tokens|lm_head"):
        llms.load(str(other), device="cpu")
    for vision in (None, "efficientnet-lite0"):
        with pytest.raises(AssetError, match="lacks 9 of the weights of a LlamaModel"):
            build(RewardConfig(backbone=cut, num_layers=2, trainable="top:1", vision=vision), "cpu")
    caplog.clear()
    build(RewardConfig(backbone=tiny_folder(tmp_path / "whole"), num_layers=2, trainable="top:1"), "cpu")
    assert "lm_head" not in caplog.text  # that a backbone leaves it out is no news


SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
ENCODERS: dict[str, dict[str, Any]] = {
    "Bert": SHAPE,
    "ModernBert": {**SHAPE, "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1},
    "Roberta": {**SHAPE, "pad_token_id": 2},
    "DebertaV2": {**SHAPE, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    "XLNet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    "T5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_backbone_has_the_positions_that_it_gives_itself(kind: str):
    tokenizer = tiny_tokenizer()
    scale = {"initializer_factor": 1.0} if kind == "T5" else {"initializer_range": 0.3}
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **scale, **ENCODERS[kind])
    name = "T5EncoderModel" if kind == "T5" else f"{kind}Model"
    backbone = seeded(0, lambda: getattr(transformers, name)(config)).eval()
    model = RewardModel(seeded(1, lambda: RewardNetwork(backbone, RewardConfig(kind, None, "all"))), tokenizer)
    rows = [torch.tensor([model.encode(text, walk)[0]]) for text, walk in zip(TEXTS, WALKS)]
    with torch.inference_mode():
        expected = [model.network.head(backbone(row).last_hidden_state[0, -1]).item() for row in rows]
    assert model.score(TEXTS, WALKS) == pytest.approx(expected, abs=1e-4)


def damaged(token: int) -> LocalLM:
    """A policy whose logit of `token` is NaN."""
    model = seeded(0, lambda: LlamaForCausalLM(tiny_config()))
    model.lm_head.weight.data[token] = float("nan")
    return LocalLM(model, tiny_tokenizer(), name="damaged")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_computes_nan_is_refused(temperature: float):
    lm = damaged(5)
    said = r"LlamaForCausalLM computes NaN in float32.*dtype=bfloat16"
    for decoding in ("sequence", "token"):
        with pytest.raises(ValueError, match=said):
            lm.choose(["Use\n"], [["8 * 4", "6 * 4"]], temperature=temperature, decoding=decoding)
    with pytest.raises(ValueError, match=said):
        lm.generate(["Use\n"], 2, max_tokens=5, temperature=temperature, seeds=[1])
    network, tokenizer = tiny_network()
    network.head.weight.data[0, 3] = float("nan")
    with pytest.raises(ValueError, match="LlamaModel computes NaN"):
        RewardModel(network, tokenizer).score(TEXTS, WALKS)


@pytest.mark.parametrize("temperature", [float("nan"), float("inf"), -1.0])
def test_a_temperature_is_a_finite_number(temperature: float):
    lm = tiny_lm()
    with pytest.raises(ValueError, match=f"temperature={temperature} is not a finite number"):
        lm.choose(["Use\n"], [["a", "b"]], temperature=temperature)
    with pytest.raises(ValueError, match=f"temperature={temperature} is not a finite number"):
        lm.generate(["Use\n"], temperature=temperature)


@pytest.mark.parametrize("decoding", ["sequence", "token"])
def test_a_tiny_temperature_takes_the_most_probable(decoding: str):
    lm, options = tiny_lm(), ["8 * 4 = 32", "8 / 2 = 4", "Use"]
    [cold] = lm.choose(["Use\n"], [options], None, temperature=0.0, decoding=decoding)
    [cool] = lm.choose(["Use\n"], [options], None, temperature=1e-310, decoding=decoding)
    np.testing.assert_array_equal([c.logprob for c in cool], [c.logprob for c in cold])
    texts = [lm.generate(["Use\n"], temperature=t, seeds=[1])[0][0].text for t in (0.0, 1e-310)]
    assert texts[0] == texts[1]


def test_each_prompt_needs_its_seed():
    lm = tiny_lm()
    with pytest.raises(ValueError, match="2 prompts but 1 seeds"):
        lm.choose(["Use\n"] * 2, [["a", "b"]] * 2, seeds=[1])
    with pytest.raises(ValueError, match="2 prompts but 1 seeds"):
        lm.generate(["Use\n"] * 2, seeds=[1])


@pytest.mark.slow
def test_without_a_stop_a_text_goes_on():
    lm = tiny_lm()
    [[endless]], [[line]] = (lm.generate(["Use\n"], max_tokens=40, stop=stop, seeds=[5]) for stop in ("", "\n"))
    assert endless.text.startswith(line.text) and endless.tokens >= line.tokens
    assert "\n" in "".join(lm.generate(["Use\n"], max_tokens=99, stop="", seeds=[s])[0][0].text for s in range(9))


GPT2 = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 1}
MPT = {"max_seq_len": 64, "d_model": 32, "n_layers": 2, "n_heads": 4}
LONG = "8 * 4 = 32\n" * 30


@pytest.mark.parametrize("kind", ["gpt2", "mpt"])
def test_a_text_beyond_a_table_of_positions_is_refused(kind: str, capsys: pytest.CaptureFixture):
    tokenizer = tiny_tokenizer()
    config: Any = GPT2Config(vocab_size=len(tokenizer), **GPT2)
    if kind == "mpt":
        config = MptConfig(vocab_size=len(tokenizer), **MPT)
    make = GPT2LMHeadModel if kind == "gpt2" else MptForCausalLM
    lm = LocalLM(seeded(0, lambda: make(config)), tokenizer, name=f"short {kind}")
    said = r"a text of \d+ tokens, but \w+ reads at most 64"
    for decoding in ("sequence", "token"):
        with pytest.raises(ValueError, match=said):
            lm.choose([LONG], [["8", "6"]], decoding=decoding)
    with pytest.raises(ValueError, match=said):
        lm.generate([LONG])
    lm.reset()
    [written] = lm.generate(["8\n"], 3, max_tokens=100, stop="", seeds=[1])
    assert max(text.tokens for text in written) == 65  # the last token was written, not read
    assert capsys.readouterr().err.count(f"short {kind} reads at most 64 tokens") == 1


def test_a_reward_backbone_reads_no_more_than_its_positions(capsys: pytest.CaptureFixture):
    tokenizer = tiny_tokenizer()
    backbone = seeded(0, lambda: GPT2Model(GPT2Config(vocab_size=len(tokenizer), **GPT2)))
    model = RewardModel(RewardNetwork(backbone, RewardConfig("short", None, "top:1")), tokenizer)
    assert "reads 64 tokens at most, not max_tokens=512" in capsys.readouterr().err
    rows = [model.encode(text, walk) for text, walk in zip(TEXTS, WALKS)]
    assert any(cut for _, cut in rows) and max(len(row) for row, _ in rows) == 64
    assert np.isfinite(model.score(TEXTS, WALKS)).all()


def test_a_rotary_model_reads_on_and_says_so(capsys: pytest.CaptureFixture):
    config = tiny_config()
    config.max_position_embeddings = 40
    lm = LocalLM(seeded(0, lambda: LlamaForCausalLM(config)), tiny_tokenizer())
    for _ in range(2):
        lm.reset()
        lm.choose([LONG], [["8", "6"]])
    assert capsys.readouterr().err.count("made for texts of 40 tokens") == 1


def test_a_tokenizer_of_another_model_is_refused():
    config = tiny_config()
    config.vocab_size = 200
    with pytest.raises(ValueError, match=r"tokenizer has \d+ tokens, but LlamaForCausalLM has embeddings for 200 only"):
        LocalLM(LlamaForCausalLM(config), tiny_tokenizer())


def saved_as(folder: Path, kind: str, tokenizer: Any, **config: Any) -> str:
    settings = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), num_labels=1, **config)
    seeded(0, lambda: getattr(transformers, f"{kind}ForSequenceClassification")(settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["Roberta", "XLNet", "Mpt", "OPT"])
def test_a_finished_model_of_an_odd_kind_scores_as_it_does_alone(kind: str, tmp_path: Path):
    opt = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2}
    config: dict[str, Any] = {
        "Roberta": {**SHAPE, "pad_token_id": 1, "max_position_embeddings": 66},
        "XLNet": ENCODERS["XLNet"],
        "Mpt": {**MPT, "pad_token_id": 2},
        "OPT": {**opt, "num_attention_heads": 4, "pad_token_id": 2, "max_position_embeddings": 64},
    }[kind]
    tokenizer = tiny_tokenizer()
    model = reward.load(saved_as(tmp_path, kind, tokenizer, **config))
    rows = [model.encode(text, walk)[0] for text, walk in zip(TEXTS, WALKS)]
    assert max(map(len, rows)) == 64 or kind == "XLNet"
    with torch.inference_mode():
        expected = [model.network.model(torch.tensor([row])).logits.item() for row in rows]
    assert model.score(TEXTS, WALKS) == pytest.approx(expected, abs=1e-4)


def test_a_chat_template_that_refuses_is_named(tmp_path: Path):
    folder = classifier(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no user here') }}", encoding="utf-8")
    with pytest.raises(ValueError, match="the chat template of .* refuses .*no user here"):
        reward.load(folder).score(TEXTS, WALKS)


@pytest.mark.parametrize("options", [{"capacity": "big"}, {"capacity": 100.0}, {"pack": -1}, {"pack": True}])
def test_a_size_is_a_whole_number(options: dict):
    [name] = options
    with pytest.raises(ValueError, match=f"{name}=.* is not a whole number of 1 or more"):
        tiny_lm(**options)


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="device 'cuda:7' is not there: PyTorch finds 0 CUDA devices"):
        pick("cuda:7")
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        pick("gpu")


def test_pairs_are_padded_without_a_padding_token_or_an_eos():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = tokenizer.pad_token = None
    pairs = [PreferencePair(str(i), str(i), text, WALKS[0], WALKS[1], "plain", 0) for i, text in enumerate(TEXTS)]
    data = PairDataModule(pairs, tokenizer, val_fraction=0.5)
    assert data.pad == tokenizer.bos_token_id
