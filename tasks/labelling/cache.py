"""The ledger of pseudo labels: a cache of computed rows, by image, from which later runs reuse them.

An image's rows depend on its pixels and points, and on what is common to all images: networks, settings, code,
hardware. A hash of the latter names the ledger's folder, a hash of the former is the image's key. The ids of points
aren't part of it: where clicks moved to other files, rows are reused under the new ids.

A finished part is a Parquet file, as in the result, and a JSON file with its images' keys and numbers of rows, the
order of their points, and the hash of the Parquet file. The JSON file is written last: a part without one, or with
another hash, doesn't count.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.masks.rle import BoolArray, IntArray
from data.tables import PSEUDO, Split, read_parquet, write_parquet
from tasks.common.errors import TaskError
from tasks.common.stage_main import read_json, write_json
from tasks.labelling.gate import REFUSAL
from tasks.labelling.parts import Part

log = logging.getLogger(__name__)

FORMAT = 2
KEY_BYTES = 16
Keys = NDArray[np.uint64]
"""[n, 2]: one image's key per row; 0, 0 is none"""


def image_keys(part: Part, weak: Split) -> Keys:
    """The keys of a part's images: hashes of their pixels' hash, size and id, of their points' x, y and classes, and of
    further clicks if there are."""
    images = (
        weak.images.take(pa.array(part.rows)).select(["image_id", "sha256", "width", "height"]).to_pylist()
    )
    columns = [part.points[name].to_numpy() for name in ("category_id", "x", "y")]
    further = part.points["further"]
    has_further = further.is_valid().to_numpy()
    keys = bytearray()
    for image, low, high in zip(images, part.bounds[:-1].tolist(), part.bounds[1:].tolist(), strict=True):
        digest = hashlib.sha256(repr(sorted(image.items())).encode())
        for column in columns:
            digest.update(column[low:high].tobytes())
        if has_further[low:high].any():
            digest.update(repr(further.slice(low, high - low).to_pylist()).encode())
        keys += digest.digest()[:KEY_BYTES]
    return np.frombuffer(bytes(keys), dtype=np.uint64).reshape(-1, 2)


class Found(NamedTuple):
    """Where the ledger has the rows of n images."""

    file: IntArray
    """int64 [n], -1 where it has none"""
    first: IntArray
    """int64 [n]: their first row in the file"""
    rows: IntArray
    """int64 [n]: the number of rows"""


class Ledger:
    """A folder of finished parts. `find` looks among those that were there when it was opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: list[str] = []
        keys: list[Keys] = [np.zeros((0, 2), np.uint64)]
        rows: list[IntArray] = [np.zeros(0, np.int64)]
        first: list[IntArray] = [np.zeros(0, np.int64)]
        for path in sorted(folder.glob("*.json")):
            entry = self.entry(path.stem)
            if entry is None:
                continue
            self._names.append(path.stem)
            keys.append(np.frombuffer(bytes.fromhex(entry["keys"]), dtype=np.uint64).reshape(-1, 2))
            rows.append(np.array(entry["rows"], np.int64))
            first.append(np.cumsum(rows[-1]) - rows[-1])
        file = np.repeat(np.arange(len(self._names)), [len(one) for one in keys[1:]])
        joined = np.concatenate(keys)
        order = np.lexsort((joined[:, 1], joined[:, 0]))
        self._keys = joined[order]
        self._file, self._first, self._rows = (
            column[order] for column in (file, np.concatenate(first), np.concatenate(rows))
        )
        self._intact: dict[int, bool] = {}
        self._tables: dict[int, tuple[pa.Table, IntArray]] = {}

    def entry(self, name: str) -> dict[str, Any] | None:
        """The content of a part's JSON file; None if there is none, or it is damaged or of another format."""
        path = self.folder / f"{name}.json"
        try:
            entry: Any = read_json(path, "pseudo_label")
        except (TaskError, UnicodeDecodeError):
            return None
        return entry if isinstance(entry, dict) and entry.get("format") == FORMAT else None

    def find(self, keys: Keys) -> Found:
        """Where the ledger has the images of these keys, in files that are intact."""
        found = Found(*(np.full(len(keys), -1, np.int64) for _ in range(3)))
        low = np.searchsorted(self._keys[:, 0], keys[:, 0], side="left")
        high = np.searchsorted(self._keys[:, 0], keys[:, 0], side="right")
        for n in np.flatnonzero(high > low):
            for at in range(low[n], high[n]):
                if self._keys[at, 1] == keys[n, 1] and keys[n].any() and self._is_intact(int(self._file[at])):
                    for column, values in zip(found, (self._file, self._first, self._rows), strict=True):
                        column[n] = values[at]
                    break
        return found

    def name_of(self, keys: Keys, ids: pa.ChunkedArray) -> str:
        """The name of a part of these images, whose points have these ids, in the order of Clicks."""
        digest = hashlib.sha256(np.ascontiguousarray(keys).tobytes())
        digest.update("\n".join(ids.to_pylist()).encode())
        return digest.hexdigest()[:32]

    def holds(self, keys: Keys, ids: pa.ChunkedArray, found: Found) -> bool:
        """Whether one file is the part of exactly these images, with these ids."""
        name = self.name_of(keys, ids)
        if len(keys) == 0:
            return False
        file = found.file[0]
        return bool(file >= 0 and (found.file == file).all() and self._names[file] == name)

    def rows(self, file: int, first: int, rows: int, ids: pa.ChunkedArray) -> pa.Table:
        """An image's PSEUDO rows from a file, in the order of Clicks, with the current ids [rows] of its points.

        The last two files stay in memory: images in order need no more.
        """
        table, places = self._tables.pop(file) if file in self._tables else self._read(file)
        self._tables = dict([*self._tables.items(), (file, (table, places))][-2:])
        found = table.slice(first, rows).take(np.argsort(places[first : first + rows]))
        at = PSEUDO.get_field_index("point_id")
        return found.set_column(at, PSEUDO.field(at), ids.cast(PSEUDO.field(at).type))

    def _read(self, file: int) -> tuple[pa.Table, IntArray]:
        """A file's rows, and the index of each among its image's Clicks."""
        entry = self.entry(self._names[file])
        if entry is None:
            raise AssertionError(f"{self._names[file]} was in the ledger")  # only `keep` removes parts
        places = np.frombuffer(bytes.fromhex(entry["places"]), dtype=np.uint32).astype(np.int64)
        return read_parquet(self._parquet(file), PSEUDO), places

    def add(self, keys: Keys, failed: BoolArray, tables: Sequence[pa.Table]) -> str:
        """Writes a part, from the PSEUDO rows of each of its images in the order of Clicks; returns its name.

        Images that `failed` [n] get no key: the next run tries them again.
        """
        name = self.name_of(keys, pa.concat_tables([PSEUDO.empty_table(), *tables])["point_id"])
        orders = [pc.sort_indices(one["point_id"]) for one in tables]
        sorted_ = [one.take(order) for one, order in zip(tables, orders, strict=True)]
        table = pa.concat_tables([PSEUDO.empty_table(), *sorted_])
        places = [np.zeros(0, np.uint32), *(order.to_numpy().astype(np.uint32) for order in orders)]
        path = self.folder / f"{name}.parquet"
        write_parquet(table, path)
        counts = Counter(table["status"].to_pylist())
        reasons = table["reason"].to_pylist()
        entry = {
            "format": FORMAT,
            "sha256": _sha256(path),
            "keys": np.where(failed[:, None], np.uint64(0), keys).tobytes().hex(),
            "rows": [len(one) for one in tables],
            "places": np.concatenate(places).tobytes().hex(),
            "counts": dict(counts),
            "refused": sum((reason or "").startswith(REFUSAL) for reason in reasons),
        }
        write_json(self.folder / f"{name}.json", entry)
        return name

    def keep(self, names: Collection[str]) -> None:
        """Removes all other parts."""
        for path in self.folder.iterdir():
            if path.stem not in names:
                path.unlink()

    def _parquet(self, file: int) -> Path:
        return self.folder / f"{self._names[file]}.parquet"

    def _is_intact(self, file: int) -> bool:
        """Whether a file has the bytes that were written; checked once."""
        if file not in self._intact:
            entry, path = self.entry(self._names[file]), self._parquet(file)
            try:
                self._intact[file] = entry is not None and entry["sha256"] == _sha256(path)
            except OSError:
                self._intact[file] = False
            if not self._intact[file]:
                log.warning("%s: damaged; its images are computed again", path)
        return self._intact[file]


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
