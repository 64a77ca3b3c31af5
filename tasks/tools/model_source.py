"""Where a model is, and the rules by which its outputs become masks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from models.checkpoint import META, load_meta
from models.config import InferenceConfig, PromptConfig
from tasks.common.config import InputConfig, checked_section, model_input
from tasks.common.errors import TaskError
from tasks.common.stage_main import WORKSPACE
from tasks.promotion.baseline import REGISTRY, VERSION, model_folder
from tasks.promotion.registry import Registry
from tasks.tools.recipes import OURS, values_of, whole

PROMOTED = "promoted"
PathLike = str | os.PathLike[str]
Rules = TypeVar("Rules", bound=BaseModel)


class Source(NamedTuple):
    """A model."""

    folder: Path
    meta: dict[str, Any]
    """the content of its model.json"""
    size: InputConfig
    """the size that images are resized to, and tiles"""

    def inference(self, params: PathLike | None) -> InferenceConfig:
        """Rules of detections: of the file `params`, else the checkpoint's own (an imported one has some), else those
        of params.yaml (`evaluate.inference`) in the project that the model is in, else the usual ones, of
        recipes/base.yaml.

        Raises:
            TaskError: a file can't be read, or has other rules.
        """
        own = self.meta.get("inference")
        if own is not None and params is None:
            return InferenceConfig.model_validate(own)
        return _rules(self._params(params), ("evaluate", "inference"), InferenceConfig)

    def prompt(self, params: PathLike | None) -> PromptConfig:
        """Rules of masks at clicks: section `prompt` of the file `params`, else as for `inference`.

        Raises:
            TaskError: a file can't be read, or has other rules.
        """
        return _rules(self._params(params), ("prompt",), PromptConfig)

    def _params(self, params: PathLike | None) -> Path:
        if params is not None:
            return Path(params)
        around = (above / "params.yaml" for above in self.folder.resolve().parents)
        return next((path for path in around if path.is_file()), OURS / "base.yaml")


def find_model(model: PathLike, project: PathLike) -> Source:
    """A model by its folder, with model.json; or of the registry of `project`: `promoted`, or a version such as v3.

    Raises:
        TaskError, CheckpointError: there is no such model, or its model.json can't be used.
    """
    folder = Path(model)
    if not folder.exists() and (str(model) == PROMOTED or VERSION.fullmatch(str(model))):
        folder = _of_registry(str(model), Path(project))
    if not folder.exists():
        raise TaskError(f"{folder}: no such version or folder of a model{_there_are(Path(project))}")
    meta = load_meta(folder)
    return Source(folder, meta, model_input(folder, meta))


def _there_are(project: Path) -> str:
    folders = sorted(path.parent for path in (project / WORKSPACE).glob(f"*/{META}"))
    names = [str(path.relative_to(project)) for path in folders]
    names += Registry(project / REGISTRY).checked_out()
    return f"; there are {', '.join(names)}" if names else ""


def _of_registry(name: str, project: Path) -> Path:
    registry = Registry(project / REGISTRY)
    version: str | None = name
    if name == PROMOTED:
        version = registry.promoted().version
        if version is None:
            raise TaskError(
                f"{registry.root}: no model is promoted; expected the registry of a project in which `points2model "
                "run` has promoted one. Name the folder of a model, or go to the project's folder"
            )
    assert version is not None
    registry.entry(version)
    folder = model_folder(registry.root, version)
    if not folder.exists():
        raise TaskError(
            f"{folder}: version {version} isn't on this machine; fetch it with `dvc pull {folder}.dvc`, in its project"
        )
    return folder


def _rules(path: Path, keys: tuple[str, ...], kind: type[Rules]) -> Rules:
    """A part of a params file; the rest of it may be of another version."""
    try:
        found: Any = values_of(whole(path), path)
        for key in keys:
            found = found[key]
    except (KeyError, TypeError):
        raise TaskError(f"{path}: found no {'.'.join(keys)}; name a params file with params=FILE") from None
    step = "Correct it, or name a params file with params=FILE"
    return checked_section(found, kind, ".".join(keys), path, step)
