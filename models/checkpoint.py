"""Our checkpoints: a folder of model.safetensors and model.json. Reading one never executes code.

model.json: {"format": 1, "kind": "solov2" | "refinenet", "config": {...}, "categories": [{"id", "name"},
...]} and whatever else the writer noted. Contiguous class i is categories[i]: the table is sorted by id.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from models.config import RefineNetConfig, SOLOv2Config
from models.refinenet import MaskRefineNet
from models.solov2 import SOLOv2

FORMAT = 1
WEIGHTS, META = "model.safetensors", "model.json"


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged, or of another format; says which file and what to do."""


def save_checkpoint(directory: str | Path, state_dict: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write a checkpoint folder, all or nothing: the same weights and meta give the same bytes.

    An older checkpoint in `directory` is replaced; other files in it stay. Raises CheckpointError when `meta`
    lacks format, kind, config or categories.
    """
    missing = [key for key in ("format", "kind", "config", "categories") if key not in meta]
    if missing:
        raise CheckpointError(f"{directory}: meta lacks {', '.join(missing)}; see models/checkpoint.py")
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    tensors = {key: state_dict[key].detach().cpu().contiguous() for key in sorted(state_dict)}
    text = json.dumps(meta, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    # Written beside their final place, since a rename across file systems isn't atomic.
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        (scratch / WEIGHTS).write_bytes(save(tensors))
        (scratch / META).write_text(text, encoding="utf-8")
        # model.json goes last and is taken away first: without it there is no checkpoint.
        (target / META).unlink(missing_ok=True)
        (scratch / WEIGHTS).replace(target / WEIGHTS)
        (scratch / META).replace(target / META)
    finally:
        shutil.rmtree(scratch)


def load_meta(directory: str | Path) -> dict[str, Any]:
    """model.json of a checkpoint folder. Raises CheckpointError."""
    path = Path(directory) / META
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: not found; expected a checkpoint folder with {META} and {WEIGHTS}"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path}: not JSON ({error}); train again or copy the checkpoint anew"
        ) from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        found = meta.get("format") if isinstance(meta, dict) else type(meta).__name__
        raise CheckpointError(
            f"{path}: found format {found!r}, expected {FORMAT}; use the version that wrote it"
        )
    return meta


def load_checkpoint(directory: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights (on the CPU) and meta of a checkpoint folder. Raises CheckpointError."""
    meta = load_meta(directory)
    path = Path(directory) / WEIGHTS
    try:
        return load_file(path), meta
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found beside {META}; copy the whole folder") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged ({error}); train again or copy the checkpoint anew") from None


def build_model(directory: str | Path) -> SOLOv2 | MaskRefineNet:
    """The network of a checkpoint folder on the CPU, in eval mode, with `.categories` [{"id", "name"}, ...].

    Raises CheckpointError when the folder isn't a checkpoint, or its weights don't fit its config.
    """
    state, meta = load_checkpoint(directory)
    path = Path(directory) / META
    model: SOLOv2 | MaskRefineNet
    try:
        # The weights that training began with are of no use here, and may be gone.
        config = {**meta["config"], "backbone": {**meta["config"]["backbone"], "weights": None}}
        if meta["kind"] == "solov2":
            model = SOLOv2(SOLOv2Config.model_validate(config), len(meta["categories"]))
        elif meta["kind"] == "refinenet":
            model = MaskRefineNet(RefineNetConfig.model_validate(config))
        else:
            raise CheckpointError(f"{path}: found kind {meta['kind']!r}, expected solov2 or refinenet")
        model.load_state_dict(state)
    except (KeyError, TypeError, ValidationError) as error:
        raise CheckpointError(f"{path}: its config is incomplete or of another version: {error}") from None
    except RuntimeError as error:
        raise CheckpointError(f"{directory}: weights do not fit the config beside them: {error}") from None
    model.categories = meta["categories"]
    return model.eval().requires_grad_(False)
