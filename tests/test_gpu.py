"""What is decided for a GPU, told by a stand-in for one; and every path on a simulated one, where that is at hand."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_training import CONFIG, toy_pairs
from tiny import seeded, tiny_config, tiny_folder, tiny_network, tiny_tokenizer
from transformers import (
    BertConfig,
    BertModel,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    MistralConfig,
    MistralModel,
)

from armap_lite import reward
from armap_lite.exchange import finished
from armap_lite.llms import device
from armap_lite.llms.memory import SHARE, activation_bytes, fit_batch, fit_to_gpu, model_bytes
from armap_lite.pipeline import profiles, run
from armap_lite.reward import model
from armap_lite.reward.config import RewardConfig, TrainingConfig
from armap_lite.reward.data import PairDataModule, pad
from armap_lite.reward.model import RewardNetwork, build

TOOLS = Path(__file__).parents[2] / "shared/tools/gpu"
SMOL = (30, 576)  # layers and hidden size of SmolLM2-135M


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch):
    """`card(name, capability, free GB)`: what torch.cuda then says of the only GPU."""

    def told(name: str, capability: tuple[int, int], free: float = 79.0) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: name)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (int(free * 1e9), int(80e9)))

    device.say_once.cache_clear()
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield told
    torch.backends.cuda.enable_cudnn_sdp(before)


def test_a_card_without_bfloat16_gets_float16_and_that_is_said_once(card, capsys: pytest.CaptureFixture):
    card("NVIDIA A100", (8, 0))
    assert device.pick("cuda")[1] == torch.bfloat16
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert capsys.readouterr().err == ""
    card("Tesla T4", (7, 5))
    assert device.pick("cuda:0") == (torch.device("cuda:0"), torch.float16)
    network, _ = tiny_network(0)
    mixed = TrainingConfig(precision="bf16-mixed", batch_size=2)
    assert fit_to_gpu(mixed, network, 60).precision == "16-mixed"
    assert fit_to_gpu(TrainingConfig(batch_size=2, precision="32-true"), network, 60).precision == "32-true"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Tesla T4 does not compute in bfloat16" in said


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_a_reward_model_has_its_dtype_before_it_is_moved(card, stored, tmp_path, monkeypatch: pytest.MonkeyPatch):
    card("NVIDIA A100", (8, 0))
    config = RewardConfig(backbone=tiny_folder(tmp_path), num_layers=2, trainable="top:1")
    seeded(0, lambda: LlamaForCausalLM(tiny_config())).to(stored).save_pretrained(tmp_path)
    moved = []
    monkeypatch.setattr(RewardNetwork, "to", lambda net, where: moved.append((where.type, net.backbone.dtype)) or net)
    for dtype, large in (("auto", 0), ("auto", 10**9), ("float32", 0), ("float16", 0)):
        monkeypatch.setattr("armap_lite.llms.device.LARGE", large)
        build(config, "cuda", dtype)
    dtypes = [torch.bfloat16, torch.float32, torch.float32, torch.float16]
    assert moved == [("cuda", dtype) for dtype in dtypes]


def test_the_dtype_that_is_asked_for_is_kept(tmp_path, monkeypatch: pytest.MonkeyPatch):
    network, tokenizer = tiny_network(backbone=tiny_folder(tmp_path / "backbone"))
    network.save(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "finished")
    one_label = tiny_config(2)
    one_label.num_labels = 1
    seeded(0, lambda: LlamaForSequenceClassification(one_label)).save_pretrained(tmp_path / "finished")
    asked = []
    for module in (model, finished):
        monkeypatch.setattr(
            module,
            "load_to",
            lambda where, dtype, make, own=module.load_to: asked.append(dtype) or own(where, dtype, make),
        )
    for folder in ("model", "finished"):
        assert reward.load(tmp_path / folder, device="cpu", dtype="float16").network.backbone.dtype == torch.float16
    assert asked == ["float16"] * 2


def test_a_small_card_takes_more_passes_and_that_is_said(card, capsys: pytest.CaptureFixture):
    network, _ = tiny_network(0, trainable="all")
    each = activation_bytes(2, 32, network.config.trainable, CONFIG.gradient_checkpointing)
    whole = TrainingConfig(batch_size=12, accumulate_grad_batches=2)
    card("one", (9, 0), (model_bytes(network) + 2 * 5 * 128 * each / SHARE) / 1e9)  # room for five pairs
    fitted = fit_to_gpu(whole, network, 100)  # padded to 128
    assert (fitted.batch_size, fitted.accumulate_grad_batches) == (4, 6)
    assert "4 pairs a pass and 6 passes a step instead of 12 and 2" in capsys.readouterr().err
    card("one", (9, 0))
    assert fit_to_gpu(whole, network, 100) == whole and capsys.readouterr().err == ""


@given(st.integers(1, 96), st.integers(1, 8), st.integers(1, 40), st.integers(0, 10**6))
def test_a_batch_is_split_no_further_than_it_has_to_be(size: int, accumulate: int, tokens: int, free: int):
    fitted = fit_batch(TrainingConfig(batch_size=size, accumulate_grad_batches=accumulate), tokens, 100, free)
    assert fitted.batch_size * fitted.accumulate_grad_batches == size * accumulate

    def fits(pairs: int) -> bool:
        return 2 * pairs * tokens * 100 <= SHARE * free

    assert fits(fitted.batch_size) or fitted.batch_size == 1
    larger = [n for n in range(fitted.batch_size + 1, size + 1) if size % n == 0]
    assert not any(map(fits, larger))


def test_the_estimate_is_what_was_measured_and_profile_gpu_fits_80_gb_in_every_world():
    assert activation_bytes(*SMOL, "all") == pytest.approx(1.18e6, rel=0.01)
    for env, longest in {"game24": 128, "scienceworld": 1024, "webshop": 1024}.items():
        settings = profiles.get("gpu", env)
        assert longest <= settings.reward.max_tokens
        each = activation_bytes(*SMOL, settings.reward.trainable, settings.training.gradient_checkpointing)
        assert fit_batch(settings.training, longest, each, int(75e9)) == settings.training
        assert settings.training.batch_size * settings.training.accumulate_grad_batches == 64


def test_frozen_layers_and_checkpointing_keep_less():
    full = activation_bytes(*SMOL, "all")
    assert activation_bytes(*SMOL, "lora:8") == full
    assert activation_bytes(*SMOL, "top:6") == full // 5
    assert activation_bytes(*SMOL, "all", gradient_checkpointing=True) < full / 10


def test_batches_for_a_gpu_have_lengths_in_multiples_of_64_and_come_from_workers():
    assert pad([[1, 2], [3]], 0)["input_ids"].tolist() == [[1, 2], [3, 0]]
    batch = pad([[5] * 65, [5]], 9, 64)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 128)
    assert batch["attention_mask"].sum(-1).tolist() == [65, 1] and int(batch["input_ids"][0, 65]) == 9
    data = PairDataModule(toy_pairs(10), tiny_tokenizer(), batch_size=4)
    plain = data.train_dataloader()
    assert (plain.num_workers, plain.pin_memory) == (0, False)
    strategy = SimpleNamespace(root_device=torch.device("cuda"))
    data.trainer = SimpleNamespace(world_size=1, global_rank=0, strategy=strategy)  # type: ignore[assignment]
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert loader.num_workers and loader.pin_memory
        collate = pickle.loads(pickle.dumps(loader.collate_fn))  # noqa: S301 (as a worker that is not forked gets it)
        assert collate(data.train_tokens[:4])["input_ids"].shape[1] % 64 == 0


def backbone(kind: str) -> tuple[torch.nn.Module, RewardConfig]:
    if kind == "bidirectional":
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        return BertModel(BertConfig(vocab_size=340, **shape)), RewardConfig(num_layers=None, trainable="all")
    if kind == "window":
        shape = {k: v for k, v in tiny_config().to_dict().items() if k in MistralConfig().to_dict()}
        return MistralModel(MistralConfig(**shape | {"sliding_window": 3})), RewardConfig(num_layers=2, trainable="all")
    return LlamaModel(tiny_config()), RewardConfig(num_layers=2, trainable="all")


@pytest.mark.parametrize(("kind", "needless"), [("causal", True), ("window", True), ("bidirectional", False)])
def test_padding_on_the_right_changes_no_reward(kind: str, needless: bool):
    network = seeded(0, lambda: RewardNetwork(*backbone(kind))).eval()
    rows = [[7, 11, 13, 17, 19, 23, 29], [7, 11], [31, 37, 41, 43]]
    batch = pad(rows, 2, 16)
    with torch.no_grad():
        rewards = network(**batch)
        alone = torch.cat([network(**pad([row], 2)) for row in rows])
        assert network._needs_no_mask == needless and not network.training
        vars(network)["_needs_no_mask"] = False
        masked = network(**batch)
    assert torch.equal(masked, rewards)  # to the last bit
    assert torch.allclose(rewards, alone, atol=1e-5)


def test_a_profile_says_how_models_compute_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    engine, told = {"capacity": 4096, "pack": 64}, {}
    monkeypatch.setattr(run.llms, "load", lambda spec, **options: told.setdefault(spec, options))
    monkeypatch.setattr(reward, "load", lambda path, **options: told.setdefault("reward", options))
    first = run.Run("game24", "fast", tmp_path, policy="here", engine=engine, data_llm="http://there/v1#m")
    _ = first.lm, first.data_lm, first.reward
    assert told == {"here": engine, "http://there/v1#m": {}, "reward": engine}
    (tmp_path / "game24/trajectories.jsonl").touch()
    run.Run("game24", "fast", tmp_path, policy="here", data_llm="http://there/v1#m")  # no other run for that


@pytest.mark.skipif(not TOOLS.is_dir(), reason="the simulated GPU is not part of this repository")
@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="the simulated GPU needs a CPU build of PyTorch")
def test_every_path_on_a_simulated_gpu():
    here = Path(__file__).parents[1]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (TOOLS, here, here / "tests")))}
    command = [sys.executable, "tests/former_names.py", str(TOOLS / "smoke.py"), "--fake"]
    ran = subprocess.run(command, env=env, cwd=here, capture_output=True, text=True, timeout=1200, encoding="utf-8")
    assert ran.returncode == 0, ran.stderr[-3000:]
    failed = [line for line in ran.stdout.splitlines() if line.startswith("FAIL")]
    assert not failed and ran.stdout.count("ok ") > 30, "\n".join(failed)
