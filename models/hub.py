"""Where published weights are: a local folder, or a model of the Hugging Face hub.

Only JSON and safetensors files are read, so no file can execute code. Nothing here imports torch or transformers.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

CONFIG, WEIGHTS = "config.json", "model*.safetensors"
FILES = (CONFIG, WEIGHTS, "model.safetensors.index.json", "preprocessor_config.json")
"""What is read of a folder; the first two must be there."""
EITHER = "a folder, or the id of a hub model: OWNER/NAME"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class FolderError(ValueError):
    """Weights that are missing, damaged or of another model."""

    def __init__(self, found: str, expected: str, step: str) -> None:
        super().__init__(f"found {found}; expected {expected}; {step}")
        self.found, self.expected, self.step = found, expected, step


class Use(NamedTuple):
    """What weights are for."""

    packages: tuple[str, ...]
    """that they need"""
    extra: str
    """of points2model, with these packages"""
    setting: str
    """of params.yaml that names them"""

    def check_installed(self) -> None:
        """Raises FolderError where a package of the extra is missing."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            step = f"run `pip install 'points2model[{self.extra}]'`"
            raise FolderError(f"no package {' and '.join(missing)}", f"the extra `{self.extra}`", step)

    def find(self, weights: str, revision: str | None, root: Path = Path()) -> Path | None:
        """The folder `weights`, relative to `root`, or the cached copy of that hub model; None if there is neither.

        Raises:
            FolderError: `weights` is neither a folder nor the id of a hub model, or a folder has a revision.
        """
        folder = root / weights
        if folder.is_dir():
            if revision is not None:
                raise FolderError(
                    f"revision {revision} with a folder, {weights}", "null", "a folder is read as it is"
                )
            return folder
        self.check_installed()
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        owner, _, name = weights.partition("/")
        # A folder of the owner's name: the last part of a path is misspelt, or isn't there yet.
        local = folder.exists() or (root / owner).is_dir()
        if local or not owner.strip(".") or not name or "/" in name:
            raise FolderError(f"no folder {weights}", EITHER, "correct the path")
        try:
            found = Path(
                snapshot_download(
                    weights, revision=revision, allow_patterns=list(FILES), local_files_only=True
                )
            )
        except HFValidationError:
            raise FolderError(f"no folder {weights}", EITHER, "correct the path") from None
        except LocalEntryNotFoundError:
            return None
        return found if (found / CONFIG).is_file() and any(found.glob(WEIGHTS)) else None

    def fetch(self, weights: str, revision: str | None) -> Path:
        """As `find`; a hub model that isn't in the cache is downloaded to it.

        Raises:
            FolderError: also where it can't be downloaded; the text says how to get a folder on another machine.
        """
        found = self.find(weights, revision)
        if found is not None:
            return found
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(weights, revision=revision, allow_patterns=list(FILES)))
        except Exception as error:  # of the network, of the hub, of the disk
            reason = (str(error).splitlines() or [type(error).__name__])[0].removeprefix("Got: ")
            raise self._not_here(weights, revision, f", and it can't be downloaded ({reason})") from None

    def check_cached(self, weights: str, revision: str | None) -> None:
        """Raises FolderError for a hub model that isn't in the cache, where the environment forbids to download it."""
        if any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE):
            raise self._not_here(weights, revision, f", and {OFFLINE[0]} is set")

    def _not_here(self, weights: str, revision: str | None, why: str) -> FolderError:
        return FolderError(
            f"no folder {weights}, and no hub model of that id in the cache{why}", "one of them",
            f"{self.on_another_machine(weights, revision)}",
        )  # fmt: skip

    def on_another_machine(self, weights: str, revision: str | None) -> str:
        """The step that makes a folder of a hub model."""
        of = f" --revision {revision}" if revision is not None else ""
        included = " ".join(f"--include '{pattern}'" for pattern in FILES)
        command = f"hf download {weights}{of} {included} --local-dir {weights.rpartition('/')[2]}"
        return (
            f"run `{command}` on a machine with a network, copy the folder here, and set {self.setting} to it"
        )


def read_config(folder: Path, known: str) -> tuple[Any, dict[str, Any]]:
    """`model_type` of a folder's config.json, and the whole content ({} where it isn't an object).

    Args:
        known: the models that are expected, for errors.

    Raises:
        FolderError: the file is missing or damaged.
    """
    path = folder / CONFIG
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FolderError(f"no file {path}", known, "name a folder as transformers saves it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FolderError(f"{path} that isn't JSON ({error})", known, "fetch the folder again") from None
    if not isinstance(config, dict):
        return None, {}
    return config.get("model_type"), config


def check_safetensors(folder: Path) -> None:
    """Raises FolderError for a folder without weights as safetensors."""
    if not any(folder.glob(WEIGHTS)):
        step = "fetch the folder again, or convert it with save_pretrained of transformers"
        raise FolderError(f"no {WEIGHTS} in {folder}", "safetensors: pickles (.bin, .pt) aren't read", step)


def files_of(folder: Path) -> list[Path]:
    """The files that are read of a folder, in a fixed order."""
    return sorted({path for pattern in FILES for path in folder.glob(pattern)})


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and hints, which would fill a stage's log."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
