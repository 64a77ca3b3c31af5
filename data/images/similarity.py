"""Near-duplicates: images that show the same in different files, re-encoded, resized or brightened.

Each image is reduced to a thumbnail (32 x 32, grey, 1 kB), each thumbnail to a 64-bit perceptual hash: which of its
lowest cosine frequencies are above their median (pHash). Candidates are pairs of hashes that differ in a few bits; they
are found by equal bytes, without comparing all pairs. A pair is accepted by the correlation of the thumbnails' fine
detail. Light and dark areas are left out, since they are alike in many images of one kind. Flat thumbnails have no
detail and match nothing.

Legend: N images, P pairs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from data.images.read import read_grey

SIDE = 32
"""Pixels along a thumbnail's side."""
RADIUS = 7
"""Most bits by which the hashes of near-duplicates differ. Of 1,008 JPEGs at 90% of the side (nuclei and facades) none
differed in more than 4; 6 and more need heavy compression. At most 7: two such hashes have a byte in common."""
ALIKE = 0.85
"""Least correlation of the detail: such copies have 0.98 and more, the most similar photos of one facade 0.62."""
LEAST_CONTRAST = 1.0
"""Standard deviation in grey levels (0..255); below it there is only rounding and compression."""
BLOCK = 2**22
"""Hashes compared at once: 32 MB."""
PART = 2**14
"""Thumbnails processed at once: 64 MB as floats."""
MANY = 2**16
"""Most pairs of a block of which all are compared."""

Thumbnails = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]

_FREQUENCIES = 8  # a side of the square of frequencies that a hash takes: 64 bits


def thumbnail(path: str | os.PathLike[str], size: tuple[int, int]) -> Thumbnails:
    """Grey uint8 [32, 32] of an image file, resized to a square; JPEGs are decoded at a fraction of their size.

    Args:
        path: the file.
        size: (width, height) of the image in pixels.

    Raises:
        DataError: not an image that can be read.
    """
    grey = read_grey(path, max(n for n in (1, 2, 4, 8) if n == 1 or min(size) // n >= 4 * SIDE))
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def perceptual_hashes(thumbnails: Thumbnails) -> Hashes:
    """Uint64 [N] of thumbnails uint8 [N, 32, 32]."""
    n = np.arange(SIDE)
    waves = np.cos(np.pi / SIDE * (n + 0.5) * np.arange(_FREQUENCIES)[:, None]).astype(np.float32)  # DCT-II
    hashes = np.empty(len(thumbnails), np.uint64)
    for at in range(0, len(thumbnails), PART):
        part = thumbnails[at : at + PART].astype(np.float32)
        low = (waves @ part @ waves.T).reshape(len(part), -1)
        low[:, 0] = 0  # the mean brightness
        bits = low > np.median(low, axis=1, keepdims=True)
        hashes[at : at + len(part)] = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    return hashes


def is_flat(thumbnails: Thumbnails) -> npt.NDArray[np.bool_]:
    """Bool [N]: thumbnails of a single grey, which would all match each other."""
    flat = np.empty(len(thumbnails), np.bool_)
    for at in range(0, len(thumbnails), PART):
        part = slice(at, at + PART)
        flat[part] = thumbnails[part].std(axis=(1, 2), dtype=np.float32) < LEAST_CONTRAST
    return flat


def detail(thumbnails: Thumbnails) -> npt.NDArray[np.float32]:
    """Float32 [N, 1024] of mean 0 and length 1: thumbnails minus their blurred copies; 0 without contrast.

    This removes what images of one kind have in common: sky above road, a plate lit in the middle.
    """
    sharp = thumbnails.astype(np.float32)
    rest = (sharp - _BLUR @ sharp @ _BLUR.T).reshape(len(sharp), -1)
    rest -= rest.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rest, axis=1, keepdims=True)
    return np.where(length < LEAST_CONTRAST * SIDE, 0, rest / np.maximum(length, 1e-6)).astype(np.float32)


def near_duplicates(queries: Thumbnails, base: Thumbnails) -> tuple[Pairs, npt.NDArray[np.float32]]:
    """The best near-duplicate in `base` of each query that has one.

    Hashes that differ in at most `RADIUS` bits have one of their 8 bytes in common, so only such pairs are compared: of
    120,000 images about one pair in 32.

    Args:
        queries: uint8 [Q, 32, 32]
        base: uint8 [N, 32, 32]

    Returns:
        Int64 [P, 2], rows of `queries` (rising) and of `base`; float32 [P], the correlation of their detail, at
        least `ALIKE`.
    """
    best = np.full(len(queries), -1, np.int64)
    score = np.zeros(len(queries), np.float32)
    query_rows, base_rows = (np.flatnonzero(~is_flat(thumbnails)) for thumbnails in (queries, base))
    if not len(query_rows) or not len(base_rows):
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)
    a, b = perceptual_hashes(queries[query_rows]), perceptual_hashes(base[base_rows])
    for rows, columns in _share_a_byte(a, b):
        pairs = _closest(a[rows], b[columns])
        all_q, all_n = query_rows[rows[pairs[:, 0]]], base_rows[columns[pairs[:, 1]]]
        for at in range(0, len(all_q), PART):
            q, n = all_q[at : at + PART], all_n[at : at + PART]
            alike = np.einsum("pd,pd->p", detail(queries[q]), detail(base[n]))
            for i in np.flatnonzero((alike >= ALIKE) & (alike > score[q])):
                if alike[i] > score[q[i]]:  # a query may be in several pairs
                    best[q[i]], score[q[i]] = n[i], alike[i]
    matched = np.flatnonzero(best >= 0)
    return np.stack([matched, best[matched]], axis=1), score[matched]


def _share_a_byte(a: Hashes, b: Hashes) -> Iterator[tuple[Pairs, Pairs]]:
    """Blocks of rows of `a` and of `b` that are equal in one of their 8 bytes; a pair may be in several."""
    for band in range(8):
        left, right = (np.asarray(hashes.view(np.uint8).reshape(-1, 8)[:, band]) for hashes in (a, b))
        by_left, by_right = (np.argsort(values, kind="stable") for values in (left, right))
        edges_left, edges_right = (
            np.searchsorted(values[order], np.arange(257))
            for values, order in ((left, by_left), (right, by_right))
        )
        for value in range(256):
            rows = by_left[edges_left[value] : edges_left[value + 1]]
            columns = by_right[edges_right[value] : edges_right[value + 1]]
            step = max(1, BLOCK // max(1, len(columns)))
            for at in range(0, len(rows) if len(columns) else 0, step):
                yield rows[at : at + step], columns


def _closest(a: Hashes, b: Hashes) -> Pairs:
    """Int64 [P, 2]: pairs that differ in at most RADIUS bits; of very many, each row's nearest."""
    apart = np.bitwise_count(a[:, None] ^ b[None])
    pairs = np.argwhere(apart <= RADIUS)
    if len(pairs) > MANY:  # frames of one camera all match each other, and one match is enough
        nearest = apart.argmin(axis=1)
        rows = np.flatnonzero(apart[np.arange(len(a)), nearest] <= RADIUS)
        pairs = np.stack([rows, nearest[rows]], axis=1)
    return np.asarray(pairs, np.int64)


def _blur(sigma: float) -> npt.NDArray[np.float32]:
    """Float32 [32, 32]: a Gaussian blur along one axis, normalised at the borders."""
    away = np.arange(SIDE)[:, None] - np.arange(SIDE)[None]
    weights = np.exp(-0.5 * (away / sigma) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


_BLUR = _blur(2.0)
