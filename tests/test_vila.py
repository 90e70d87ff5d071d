"""VILA1.5 as a backbone: a tiny random checkpoint in its layout, against a forward pass written out here."""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from PIL import Image
from safetensors.torch import save_file
from test_vision import draw, walk
from tiny import seeded
from torch.nn import functional as F

from armap_lite import reward
from armap_lite.reward import RewardConfig
from armap_lite.reward.model import build
from armap_lite.reward.scorer import RewardModel
from armap_lite.vision.pictures import encode
from armap_lite.vision.towers import side_by_side

C, H, HEADS, LAYERS = 8, 16, 2, 3  # of both transformers; SigLIP's vectors, the Llama's, attention heads, layers
SIDE, PATCH = 70, 14  # 5 x 5 patches: an odd side, as VILA's 27 x 27
WORDS = 300  # of the Llama's vocabulary


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARMAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def linear(name: str, outputs: int, inputs: int) -> dict[str, torch.Tensor]:
    return {
        f"{name}.weight": torch.randn(outputs, inputs) / math.sqrt(inputs),
        f"{name}.bias": torch.randn(outputs) * 0.1,
    }


def scale(name: str, size: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": 1 + torch.randn(size) * 0.1, f"{name}.bias": torch.randn(size) * 0.1}


def tower_weights() -> dict[str, torch.Tensor]:
    found = {
        "vision_model.embeddings.patch_embedding.weight": torch.randn(C, 3, PATCH, PATCH) * 0.05,
        "vision_model.embeddings.patch_embedding.bias": torch.randn(C) * 0.1,
        "vision_model.embeddings.position_embedding.weight": torch.randn((SIDE // PATCH) ** 2, C) * 0.5,
        "vision_model.head.probe": torch.randn(1, 1, C),
        "vision_model.head.attention.in_proj_weight": torch.randn(3 * C, C),
        "vision_model.head.attention.in_proj_bias": torch.randn(3 * C),
        **linear("vision_model.head.attention.out_proj", C, C),
        **linear("vision_model.head.mlp.fc1", 2 * C, C),
        **linear("vision_model.head.mlp.fc2", C, 2 * C),
        **scale("vision_model.head.layernorm", C),
        **scale("vision_model.post_layernorm", C),
    }
    for i in range(LAYERS):
        layer = f"vision_model.encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= linear(f"{layer}.self_attn.{name}", C, C)
        found |= linear(f"{layer}.mlp.fc1", 2 * C, C) | linear(f"{layer}.mlp.fc2", C, 2 * C)
        found |= scale(f"{layer}.layer_norm1", C) | scale(f"{layer}.layer_norm2", C)
    return found


def llm_weights() -> dict[str, torch.Tensor]:
    found = {"model.embed_tokens.weight": torch.randn(WORDS, H), "lm_head.weight": torch.randn(WORDS, H)}
    found["model.norm.weight"] = 1 + torch.randn(H) * 0.1
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        shapes = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (H, H))
        found |= {f"{layer}.self_attn.{name}.weight": torch.randn(shape) / 4 for name, shape in shapes.items()}
        shapes = {"gate_proj": (2 * H, H), "up_proj": (2 * H, H), "down_proj": (H, 2 * H)}
        found |= {f"{layer}.mlp.{name}.weight": torch.randn(shape) / 4 for name, shape in shapes.items()}
        found |= {
            f"{layer}.{name}.weight": 1 + torch.randn(H) * 0.1
            for name in ("input_layernorm", "post_attention_layernorm")
        }
    return found


PROJECTOR = ("layers.1", "layers.2", "layers.4")


def projector_weights() -> dict[str, torch.Tensor]:
    norm, first, second = PROJECTOR
    return scale(norm, 4 * C) | linear(first, H, 4 * C) | linear(second, H, H)


LLM = {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2,
       "hidden_act": "silu", "hidden_size": H, "initializer_range": 0.02, "intermediate_size": 2 * H,
       "max_position_embeddings": 4096, "model_max_length": 4096, "model_type": "llama", "num_attention_heads": HEADS,
       "num_hidden_layers": LAYERS, "num_key_value_heads": HEADS, "pad_token_id": 0, "rms_norm_eps": 1e-05,
       "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
       "use_cache": True, "vocab_size": WORDS}  # fmt: skip
TOWER = {"architectures": ["SiglipVisionModel"], "attention_dropout": 0.0, "hidden_act": "gelu_pytorch_tanh",
         "hidden_size": C, "image_size": SIDE, "intermediate_size": 2 * C, "layer_norm_eps": 1e-06,
         "model_type": "siglip_vision_model", "num_attention_heads": HEADS, "num_channels": 3,
         "num_hidden_layers": LAYERS, "patch_size": PATCH, "torch_dtype": "bfloat16"}  # fmt: skip
MLP = {"architectures": ["MultimodalProjector"], "mm_projector_type": "mlp_downsample", "model_type": "v2l_projector",
       "torch_dtype": "bfloat16"}  # fmt: skip
WHOLE = {"architectures": ["LlavaLlamaModel"], "drop_path_rate": 0.0, "hidden_size": H, "image_aspect_ratio": "resize",
         "interpolate_mode": "linear", "mm_hidden_size": C, "mm_projector_lr": None, "mm_use_im_patch_token": False,
         "mm_use_im_start_end": False, "mm_vision_select_feature": "cls_patch", "mm_vision_select_layer": -2,
         "model_dtype": "torch.bfloat16", "model_type": "llava_llama", "num_video_frames": 8, "resume_path": "./vlm",
         "s2": False, "s2_max_split_size": 336, "s2_scales": "336,672,1008", "transformers_version": "4.36.2",
         "tune_language_model": True, "tune_mm_projector": True, "tune_vision_tower": True,
         "vision_resolution": -1}  # fmt: skip
PREPARATION = {"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3,
               "image_processor_type": "SiglipImageProcessor", "image_std": [0.5] * 3,
               "processor_class": "SiglipProcessor", "resample": 3, "rescale_factor": 1 / 255,
               "size": {"height": SIDE, "width": SIDE}}  # fmt: skip

Weights = dict[str, dict[str, torch.Tensor]]


def write(folder: Path, part: str, config: dict, weights: dict[str, torch.Tensor]) -> None:
    (folder / part).mkdir(parents=True)
    (folder / part / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(
        {name: t.contiguous() for name, t in weights.items()}, folder / part / "model.safetensors", {"format": "pt"}
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Weights]:
    """The folder, and what lies in it."""
    folder = tmp_path_factory.mktemp("hub") / "VILA1.5-3b"
    weights = seeded(
        0, lambda: {"llm": llm_weights(), "vision_tower": tower_weights(), "mm_projector": projector_weights()}
    )
    for part, config in (("llm", LLM), ("vision_tower", TOWER), ("mm_projector", MLP)):
        write(folder, part, config, weights[part])
    parts = {"llm_cfg": LLM, "vision_tower_cfg": TOWER, "mm_projector_cfg": MLP}
    (folder / "config.json").write_text(json.dumps(WHOLE | parts), encoding="utf-8")
    (folder / "vision_tower/preprocessor_config.json").write_text(json.dumps(PREPARATION), encoding="utf-8")
    model = io.BytesIO()
    lines = ["find a red shirt under 20 dollars", "click the blue one", "welcome page shop buy now"] * 4
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=290, model_type="bpe", byte_fallback=True,
        pad_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (folder / "llm/tokenizer.model").write_bytes(model.getvalue())
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "legacy": False,
    }
    (folder / "llm/tokenizer_config.json").write_text(
        json.dumps(settings | {"pad_token": "<unk>", "add_bos_token": True}), encoding="utf-8"
    )
    return folder, weights


# The independent forward pass.


def affine(x: torch.Tensor, w: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))


def layer_norm(x: torch.Tensor, w: dict[str, torch.Tensor], name: str, eps: float) -> torch.Tensor:
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """[T, D] each, over HEADS heads."""
    parts = []
    for one, two, three in zip(*(x.chunk(HEADS, -1) for x in (q, k, v))):
        weight = one @ two.T / math.sqrt(one.shape[-1])
        if causal:
            weight = weight.masked_fill(torch.ones_like(weight).triu(1).bool(), -torch.inf)
        parts.append(weight.softmax(-1) @ three)
    return torch.cat(parts, -1)


def see(w: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """Pixels [3, S, S] -> SigLIP's layer before the last, [N, C]."""
    n = SIDE // PATCH
    squares = pixels.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)  # [3, n, n, P, P]
    squares = squares.permute(1, 2, 0, 3, 4).reshape(n * n, -1)
    name = "vision_model.embeddings"
    x = squares @ w[f"{name}.patch_embedding.weight"].flatten(1).T + w[f"{name}.patch_embedding.bias"]
    x = x + w[f"{name}.position_embedding.weight"]
    for i in range(LAYERS - 1):
        layer = f"vision_model.encoder.layers.{i}"
        y = layer_norm(x, w, f"{layer}.layer_norm1", 1e-6)
        q, k, v = (affine(y, w, f"{layer}.self_attn.{part}_proj") for part in "qkv")
        x = x + affine(attention(q, k, v, causal=False), w, f"{layer}.self_attn.out_proj")
        y = F.gelu(affine(layer_norm(x, w, f"{layer}.layer_norm2", 1e-6), w, f"{layer}.mlp.fc1"), approximate="tanh")
        x = x + affine(y, w, f"{layer}.mlp.fc2")
    return x


def project(w: dict[str, torch.Tensor], patches: torch.Tensor) -> torch.Tensor:
    """[25, C] -> [9, H]: a sixth row and column of zeros, squares of 2 x 2 column by column, the MLP."""
    n = SIDE // PATCH
    grid = torch.zeros(n + 1, n + 1, C)
    grid[:n, :n] = patches.view(n, n, C)
    squares = [
        torch.cat([grid[row, column], grid[row, column + 1], grid[row + 1, column], grid[row + 1, column + 1]])
        for column in range(0, n + 1, 2)
        for row in range(0, n + 1, 2)
    ]
    norm, first, second = PROJECTOR
    return affine(F.gelu(affine(layer_norm(torch.stack(squares), w, norm, 1e-5), w, first)), w, second)


def rms(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w


def turn(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions, [T, H]."""
    half = H // HEADS // 2
    angle = torch.arange(len(x))[:, None] * 10000.0 ** (-torch.arange(half) / half)  # [T, D/2]
    cos, sin = angle.cos(), angle.sin()
    parts = []
    for head in x.chunk(HEADS, -1):
        one, two = head[:, :half], head[:, half:]
        parts += [one * cos - two * sin, two * cos + one * sin]
    return torch.cat(parts, -1)


def read(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Embedded tokens [T, H] -> hidden states [T, H]."""
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        y = rms(x, w[f"{layer}.input_layernorm.weight"])
        q, k, v = (affine(y, w, f"{layer}.self_attn.{part}_proj") for part in "qkv")
        x = x + affine(attention(turn(q), turn(k), v, causal=True), w, f"{layer}.self_attn.o_proj")
        y = rms(x, w[f"{layer}.post_attention_layernorm.weight"])
        x = x + affine(
            F.silu(affine(y, w, f"{layer}.mlp.gate_proj")) * affine(y, w, f"{layer}.mlp.up_proj"),
            w,
            f"{layer}.mlp.down_proj",
        )
    return rms(x, w["model.norm.weight"])


def test_vila_s_numbers(checkpoint: tuple[Path, Weights], tmp_path: Path):
    folder, weights = checkpoint
    config = RewardConfig(backbone=str(folder), num_layers=None, trainable="lora:2", vision="own", max_tokens=400)
    network, tokenizer = build(config, "cpu")
    pictures = network.pictures
    assert pictures and (pictures.tower.tokens, pictures.tower.size) == (9, 4 * C)
    red, blue = draw(tmp_path / "red.png"), draw(tmp_path / "blue.png", "blue", 9)
    trajectory = walk(red, None, blue)
    model = RewardModel(network, tokenizer)
    ids, _ = encode(model.lines, trajectory, "find a red shirt", 400, pictures)
    assert ids[0] == 1 and sum(i >= WORDS for i in ids) == 18

    def show(path: str) -> torch.Tensor:
        small = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255 * 2 - 1
        return project(weights["mm_projector"], see(weights["vision_tower"], pixels))  # [9, H]

    shown = iter(torch.cat([show(red), show(blue)]))
    words = weights["llm"]["model.embed_tokens.weight"]
    embedded = torch.stack([words[i] if i < WORDS else next(shown) for i in ids])
    with torch.no_grad():
        expected = network.head(read(weights["llm"], embedded)[-1])
    assert model.score(["find a red shirt"], [trajectory])[0] == pytest.approx(float(expected), abs=1e-4)

    swapped = model.score(["find a red shirt"], [walk(blue, None, red)])[0]
    assert abs(swapped - float(expected)) > 1e-3


def test_the_squares_come_as_vila_was_trained():
    patches = torch.arange(9.0)[None, :, None]  # rows 012, 345, 678
    assert side_by_side(patches)[0].tolist() == [[0, 1, 3, 4], [6, 7, 0, 0], [2, 0, 5, 0], [8, 0, 0, 0]]
    assert side_by_side(torch.zeros(2, 27**2, 3)).shape == (2, 196, 12)


def test_tower_and_projector_stay_as_they_are_unless_all_learns(checkpoint: tuple[Path, Weights], tmp_path: Path):
    folder, _ = checkpoint
    config = RewardConfig(backbone=str(folder), num_layers=2, trainable="lora:2", vision="own")
    network, tokenizer = build(config, "cpu")
    assert all("lora_" in name or name.startswith("head.") for name in network.learned())
    whole, _ = build(RewardConfig(backbone=str(folder), num_layers=2, trainable="all", vision="own"), "cpu")
    assert sum("projector" in name for name in whole.learned()) == 6
    seeded(1, lambda: [t.add_(torch.randn_like(t), alpha=0.1) for t in network.learned().values()])
    some = [walk(draw(tmp_path / "a.png")), walk(None)]
    network.save(tmp_path / "model")
    expected = RewardModel(network, tokenizer).score(["go"] * 2, some)
    assert reward.load(tmp_path / "model").score(["go"] * 2, some) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("change", [{"mm_projector_cfg": MLP | {"mm_projector_type": "mlp2x_gelu"}}, {"s2": True}])
def test_another_build_is_refused(change: dict, checkpoint: tuple[Path, Weights], tmp_path: Path):
    folder, _ = checkpoint
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{tmp_path}: .* not built here; take VILA1.5-3b"):
        build(RewardConfig(backbone=str(tmp_path), num_layers=2, vision="own"), "cpu")
