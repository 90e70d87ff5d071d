"""Tiny random models of many architectures, by name: what the engines have to agree with."""

from typing import Any

import torch
from tiny import seeded, tiny_tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

WINDOW = 8

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
MIXED = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": WINDOW}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "qwen2": (
        "qwen2",
        {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    ),
    "gemma2": ("gemma2", {**MIXED, "query_pre_attn_scalar": 8}),
    "gemma3": ("gemma3_text", {**MIXED, "query_pre_attn_scalar": 8}),
    "phi3": ("phi3", {"sliding_window": WINDOW}),
    "qwen3": ("qwen3", {}),
    "qwen3_moe": ("qwen3_moe", {**EXPERTS, "decoder_sparse_step": 1}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 2048}),
    "gpt_neox": ("gpt_neox", {}),
    "opt": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 16, "hidden_size": 32}),
    "bloom": ("bloom", {"n_layer": 3, "n_head": 4}),
    "olmo2": ("olmo2", {}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 2}),
    "granite": ("granite", {"logits_scaling": 3.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0}),
    "cohere2": ("cohere2", {**MIXED, "logit_scale": 0.3}),
    "deepseek_v3": (
        "deepseek_v3",
        {
            "q_lora_rank": 16,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8,
            "v_head_dim": 6,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
            "num_key_value_heads": 4,
            "head_dim": 4,
        },
    ),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False}),
    "qwen3_next": (
        "qwen3_next",
        {
            **EXPERTS,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "mamba2": ("mamba2", {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "chunk_size": 8}),
    "gpt_oss": ("gpt_oss", {**MIXED, "num_local_experts": 4, "num_experts_per_tok": 2}),
}
WITHOUT = {  # fields of SMALL that a config has no place for, or means something else by
    "gpt2": {"num_key_value_heads", "head_dim", "intermediate_size"},
    "gpt_neox": {"num_key_value_heads", "head_dim"},
    "opt": {"num_key_value_heads", "head_dim", "intermediate_size"},
    "bloom": {"num_key_value_heads", "head_dim", "intermediate_size"},
    "mamba2": {"num_key_value_heads", "intermediate_size", "num_attention_heads"},
}


def config(name: str) -> Any:
    kind, own = SETTINGS[name]
    tokenizer = tiny_tokenizer()
    ids = {f"{which}_token_id": getattr(tokenizer, f"{which}_token_id") for which in ("bos", "eos", "pad")}
    small = {k: v for k, v in SMALL.items() if k not in WITHOUT.get(name, ())}
    spread = {"initializer_range": 0.2}  # ten times the usual: what a model says depends on what it read
    return AutoConfig.for_model(kind, **{**small, "vocab_size": len(tokenizer), **ids, **spread, **own})


def causal_lm(name: str, seed: int = 0) -> Any:
    return seeded(seed, lambda: AutoModelForCausalLM.from_config(config(name), dtype=torch.float32)).eval()


def backbone(name: str, seed: int = 0) -> Any:
    return seeded(seed, lambda: AutoModel.from_config(config(name), dtype=torch.float32)).eval()


def bert_config(**settings: Any) -> Any:
    """BERT reads from both sides, unless it is a decoder."""
    small = {k: v for k, v in SMALL.items() if k not in ("num_key_value_heads", "head_dim", "tie_word_embeddings")}
    return AutoConfig.for_model("bert", **{**small, "vocab_size": 340, "initializer_range": 0.2, **settings})
