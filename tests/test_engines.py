"""Which engine a model gets, and what it is told about size and precision."""

from types import SimpleNamespace

import pytest
import torch
from architectures import SMALL, bert_config, causal_lm
from tiny import seeded, tiny_config, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from armap_lite.llms import layers, plain
from armap_lite.llms.forest import Forest, LogitForest
from armap_lite.llms.local import LocalLM
from armap_lite.llms.plain import Plain, PlainLogits

IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


def tiny(kind: str, **settings) -> torch.nn.Module:
    config = AutoConfig.for_model(kind, **{**SMALL, "vocab_size": 340, "initializer_range": 0.2, **IDS, **settings})
    return seeded(0, lambda: AutoModelForCausalLM.from_config(config, dtype=torch.float32)).eval()


def expect_plain(model: torch.nn.Module, lengths: list[int]) -> None:
    lm = LocalLM(model, tiny_tokenizer(), name="odd")
    assert isinstance(lm.forest, Plain)
    texts = [[10 + (7 * i + n) % 90 for i in range(n)] for n in lengths]
    nodes = [lm.forest.add(text) for text in texts]
    found = lm.forest.logprobs(nodes)
    for text, node in zip(texts, nodes):
        with torch.inference_mode():
            expected = model(torch.tensor([text]), use_cache=False).logits[0, -1].log_softmax(-1)
        torch.testing.assert_close(found[node], expected, atol=1e-3, rtol=0)


def test_rotary_frequencies_that_depend_on_the_length_are_not_shared(capsys: pytest.CaptureFixture):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = tiny("llama", rope_parameters=rope, max_position_embeddings=24)
    expect_plain(model, [10, 40, 12, 30, 40])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "odd: LlamaForCausalLM runs on the plain path, which is slower" in said
    assert "rotary frequencies depend on the length" in said
    LocalLM(model, tiny_tokenizer(), name="odd")
    assert capsys.readouterr().err == ""  # once


def test_attention_in_chunks_is_found_by_what_it_computes(capsys: pytest.CaptureFixture):
    types = ["chunked_attention", "full_attention"]
    experts = {"num_local_experts": 2, "intermediate_size_mlp": 64, "interleave_moe_layer_step": 1}
    model = tiny("llama4_text", num_hidden_layers=2, layer_types=types, attention_chunk_size=512, **experts)
    expect_plain(model, [20, 30])
    assert "it computes something else (relative error" in capsys.readouterr().err
    assert model.config.attention_chunk_size == 512  # the check puts back what it changed
    assert len(model.model.layers) == model.config.num_hidden_layers == 2


def test_the_check_reads_few_layers_and_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch):
    model, ran = tiny("llama", num_hidden_layers=7), set()
    for i, layer in enumerate(model.model.layers):
        layer.register_forward_pre_hook(lambda *_, i=i: ran.add(i))
    assert isinstance(LocalLM(model, tiny_tokenizer()).forest, Forest)
    assert ran == {0, 1}
    assert len(model.model.layers) == model.config.num_hidden_layers == 7
    mixed = tiny("smollm3", num_hidden_layers=7, no_rope_layer_interval=3)
    assert layers.kinds(mixed) == 3


@pytest.mark.parametrize("positions", [3, 8, 21, 22, 29])
@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_a_model_with_few_positions_is_checked_on_a_short_text(kind, positions):
    model = tiny(kind, max_position_embeddings=positions)
    lm = LocalLM(model, tiny_tokenizer())
    assert isinstance(lm.forest, Forest) and lm.forest.limit == positions
    assert lm.choose([""], [["a", "b"]], None)[0][0].text == "a"


def test_a_forest_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch):
    model = tiny("mistral", sliding_window=4096)
    trial = {"capacity": 64, "pack": 64}
    assert plain.differs(LogitForest(model, **trial), PlainLogits(model), model) is None
    usual = LogitForest._call

    def blind(self, rows, inputs):  # positions that do not know the depth in the tree
        return usual(self, rows, {**inputs, "position_ids": torch.zeros_like(inputs["position_ids"])})

    monkeypatch.setattr(LogitForest, "_call", blind)
    assert "something else" in plain.differs(LogitForest(model, **trial), PlainLogits(model), model)
    monkeypatch.undo()
    usual_mask = plain.Forest._groups

    def wide(self, batch):  # masks that forget the window
        groups = usual_mask(self, batch)
        for group in groups:
            group.mask = lambda window, own=group.mask: own(None)
        return groups

    monkeypatch.setattr(Forest, "_groups", wide)
    assert "something else" in plain.differs(LogitForest(model, **trial), PlainLogits(model), model)
    assert model.config.sliding_window == 4096


@pytest.mark.parametrize("kind", [LogitForest, PlainLogits])
def test_logits_of_a_bf16_model_come_from_an_fp32_head(kind: type):
    model = seeded(0, lambda: LlamaForCausalLM(tiny_config())).bfloat16().eval()
    engine = kind(model)
    node = engine.add(range(10, 30))
    found = engine.logprobs([node])[node]
    with torch.inference_mode():
        hidden = model.model(torch.tensor([list(range(10, 30))])).last_hidden_state[0, -1]
        exact = (model.lm_head.weight.float() @ hidden.float()).log_softmax(-1)
        coarse = model(torch.tensor([list(range(10, 30))])).logits[0, -1].float().log_softmax(-1)
    assert found.dtype == torch.float32 and "forward" not in vars(model.lm_head)
    bound = 0.25 * (coarse - exact).abs().max() if kind is PlainLogits else 0.2  # a forest's bf16 passes round anew
    assert (found - exact).abs().max() <= bound


def test_sizes_follow_the_device_and_its_free_memory(monkeypatch: pytest.MonkeyPatch):
    assert plain.sizes(torch.device("cpu"), 23_000, 49_152) == (16384, 512)
    for free, token, vocabulary in ((80, 23_000, 49_152), (64, 131_000, 128_256), (8, 131_000, 128_256)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free * 10**9, 80 * 10**9))
        capacity, pack = plain.sizes(torch.device("cuda"), token, vocabulary)
        assert pack % 64 == 0 and 512 <= pack <= 8192 and capacity >= 2 * pack
        assert capacity * token + pack * vocabulary * 12 <= 0.36 * free * 10**9
        assert (pack >= 4096) == (free >= 64)
    lm = LocalLM(tiny("llama"), tiny_tokenizer(), capacity=300, pack=20)
    assert (lm.forest.capacity, lm.forest.pack) == (300, 20)


def test_layers_are_found_and_cut_with_their_settings():
    model = tiny(
        "qwen2", num_hidden_layers=4, layer_types=["full_attention", "sliding_attention"] * 2, sliding_window=8
    )
    undo = layers.cut(model, 3)
    assert len(model.model.layers) == 3 and model.config.layer_types == [
        "full_attention",
        "sliding_attention",
        "full_attention",
    ]
    undo()
    assert len(model.model.layers) == len(model.config.layer_types) == 4
    experts = tiny("qwen3_moe", num_experts=8, num_experts_per_tok=2, moe_intermediate_size=8, num_hidden_layers=2)
    assert layers.find(experts) == (experts.model, "layers")  # not a list of experts
    assert layers.find(SimpleNamespace(named_modules=list, config=model.config)) is None


@pytest.mark.parametrize("name", ["gemma2", "lfm2", "qwen3_next"])
def test_what_a_plain_engine_writes_costs_its_new_tokens(name: str):
    options = {"max_tokens": 9, "seeds": [1, 2], "stop": "<never>"}
    prompts = ["Use the numbers 1 4 8 8\n", "Use the door\n"]
    lm = LocalLM(causal_lm(name), tiny_tokenizer())
    assert isinstance(lm.forest, Plain)
    kept = lm.generate(prompts, 3, **options)
    assert lm.forest.tokens_computed <= sum(1 + len(lm.lines(prompt)) for prompt in prompts) + 2 * 3 * 8
    crowded = LocalLM(causal_lm(name), tiny_tokenizer(), capacity=60)  # some texts grow from their cache, some anew
    assert crowded.generate(prompts, 3, **options) == kept
    lm.reset()
    lm.forest.keeps = False
    assert lm.generate(prompts, 3, **options) == kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_policy_that_reads_from_both_sides_is_refused(dtype: torch.dtype):
    bert = AutoModelForCausalLM.from_config(bert_config()).eval().to(dtype)
    with pytest.raises(ValueError, match="odd: BertLMHeadModel reads text from both sides: it is no decoder-only"):
        LocalLM(bert, tiny_tokenizer(), name="odd")
    decoder = seeded(0, lambda: AutoModelForCausalLM.from_config(bert_config(is_decoder=True), dtype=torch.float32))
    text = list(range(10, 30))
    lm = LocalLM(decoder, tiny_tokenizer())  # the same layers as a decoder are taken
    node = lm.forest.add(text)
    with torch.inference_mode():
        expected = decoder(torch.tensor([text])).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(lm.forest.logprobs([node])[node], expected, atol=1e-3, rtol=0)
