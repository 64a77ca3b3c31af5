"""The outputs of a model for images: a vector of its backbone for each, and the objects that it finds. They are made
and kept in parts, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from data.masks.rle import encode_many
from data.tables import Split, read_parquet, write_parquet
from models.config import InferenceConfig
from models.inference.pooled import pooled_features
from models.inference.tiles import Tiled, forward_tiled, predict
from models.solov2.network import SOLOv2
from tasks.common.config import InputConfig
from tasks.common.progress import Bar
from tasks.inference.batches import ImageBatch, grouped, read_batches

PART_IMAGES = 64
OUTPUTS = pa.schema(
    [
        ("file_name", pa.string()),
        ("fault", pa.string()),  # why it can't be read; then the rest is null
        ("features", pa.list_(pa.float32())),
        ("category_id", pa.list_(pa.int64())),  # of each object, the best first
        ("score", pa.list_(pa.float64())),
        ("rle_counts", pa.list_(pa.binary())),  # of the image's size
    ]
)


@dataclass(frozen=True)
class CachedModel:
    """A network whose outputs are kept, and how it is used.

    Attributes:
        network: on `device`, in eval mode.
        size: the size that images are resized to.
        batch_size: images at a time, all of one padded size.
        identity: of the model's weights and of the code that predicts; with the other settings it decides which
            results are used again.
    """

    network: SOLOv2
    size: InputConfig
    inference: InferenceConfig
    batch_size: int
    device: torch.device
    identity: str
    threads: int = 2

    def outputs(self, split: Split, cache: Path, what: str) -> pa.Table:
        """OUTPUTS, a row for each image of the split, in its order; parts that are in `cache` aren't made again."""
        rows = range(len(split))
        parts = [list(rows[at : at + PART_IMAGES]) for at in range(0, len(rows), PART_IMAGES)]
        paths = [cache / f"{self._key(split, part)}.parquet" for part in parts]
        cache.mkdir(parents=True, exist_ok=True)
        done = sum(len(part) for part, path in zip(parts, paths, strict=True) if path.exists())
        tables = []
        with Bar(what, len(rows), "image", done) as bar:
            for part, path in zip(parts, paths, strict=True):
                if not path.exists():
                    write_parquet(self._part(split, part, bar), path)
                tables.append(read_parquet(path, OUTPUTS))
        return pa.concat_tables([OUTPUTS.empty_table(), *tables]).combine_chunks()

    def _key(self, split: Split, part: Sequence[int]) -> str:
        """Changes with everything that the part's content depends on."""
        files = []
        for row in part:
            image = split.image(row)
            path = split.image_path(row)
            facts = path.stat() if path.exists() else None
            found = None if facts is None else (facts.st_size, facts.st_mtime_ns)
            files.append([image["file_name"], str(path), image["sha256"] or found])
        settings = [self.identity, self.size.model_dump(), self.inference.model_dump(), self.batch_size]
        text = json.dumps([OUTPUTS.to_string(), torch.__version__, self.device.type, settings, files])
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def _part(self, split: Split, part: Sequence[int], bar: Bar) -> pa.Table:
        names = split.images["file_name"]
        found: dict[int, dict[str, Any]] = {}
        batches = grouped(split, part, self.size, self.batch_size)
        for batch, unread in read_batches(split, batches, self.size, 0, self.threads):
            found |= {one.row: {"fault": one.fault} for one in unread}
            if batch is not None:
                found |= self._batch(batch)
            bar.advance(len(unread) + (len(batch.rows) if batch is not None else 0))
        rows = [dict.fromkeys(OUTPUTS.names) | found[row] | {"file_name": names[row].as_py()} for row in part]
        return pa.Table.from_pylist(rows, schema=OUTPUTS)

    @torch.inference_mode()
    def _batch(self, batch: ImageBatch) -> dict[int, dict[str, Any]]:
        with pooled_features(self.network) as pooled:
            images = batch.images.to(self.device)
            outputs = forward_tiled(self.network, images, batch.content_sizes, self.size.tile)
        counts = (
            [len(of_image) for of_image in outputs.tiles] if isinstance(outputs, Tiled) else [1] * len(images)
        )
        features = pooled.take(counts)
        found = {}
        for n, row in enumerate(batch.rows):
            detections = predict(outputs, n, self.inference, batch.sizes(n))
            codes = encode_many(detections.masks, detections.boxes_xyxy)
            ids = [self.network.categories[label]["id"] for label in detections.labels.tolist()]
            objects = {"category_id": ids, "score": detections.scores.tolist(), "rle_counts": codes}
            found[row] = {"features": features[n].tolist(), **objects}
        return found
