"""Packs data for a machine without a network: nuclei as lossless WebP, EfficientNet-Lite0's weights as half floats.

Pixels are checked to be the same. `bench/gpu/run.sh` makes the weights float32 again.

    python bench/gpu/pack_data.py DATA OUT      # what bench/gpu/pack.sh runs
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from models.backbones.efficientnet import WEIGHTS_FILE
from models.backbones.registry import BACKBONES


def pack_images(source: Path, target: Path) -> int:
    """Writes the images of train.json and val.json as WebP, and these files with the new names; returns the number."""
    (target / "images").mkdir(parents=True)
    packed: set[str] = set()
    for name in ("train.json", "val.json"):
        content: dict[str, Any] = json.loads((source / name).read_text(encoding="utf-8"))
        for image in content["images"]:
            old = source / "images" / image["file_name"]
            image["file_name"] = f"{Path(image['file_name']).stem}.webp"
            if image["file_name"] not in packed:
                packed.add(image["file_name"])
                pack_image(old, target / "images" / image["file_name"])
        (target / name).write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    return len(packed)


def pack_image(source: Path, target: Path) -> None:
    with Image.open(source) as image:
        pixels = image.convert("RGB")
    pixels.save(target, "WEBP", lossless=True, quality=60, method=3)
    with Image.open(target) as written:
        if not np.array_equal(np.asarray(written.convert("RGB")), np.asarray(pixels)):
            raise SystemExit(f"{source}: WebP changed its pixels")


def pack_weights(target: Path) -> None:
    package = BACKBONES["efficientnet_lite0"].weights_package
    assert package is not None
    spec = find_spec(package.module)
    if spec is None or spec.origin is None:
        raise SystemExit(f"no weights of EfficientNet-Lite0 here: {package.install}")
    state = torch.load(Path(spec.origin).parent / WEIGHTS_FILE, weights_only=True)
    halves = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in state.items()
    }
    save_file(halves, target)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="a folder with nuclei/{train,val}.json and nuclei/images")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if not (arguments.data / "nuclei" / "train.json").is_file():
        raise SystemExit(f"{arguments.data}: found no nuclei/train.json; name the folder that has it")
    count = pack_images(arguments.data / "nuclei", arguments.out / "data" / "nuclei")
    pack_weights(arguments.out / "efficientnet_lite0.safetensors")
    print(f"{count} images packed")


if __name__ == "__main__":
    main()
