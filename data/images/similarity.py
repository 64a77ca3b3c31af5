"""Images that show the same though their files differ: encoded anew, resized, brightened.

Each image becomes a thumbnail (32 x 32, grey, 1 kB, to be kept), each thumbnail a 64-bit perceptual hash: the signs of
its lowest cosine frequencies about their median (pHash). Hashes within a few bits of each other are found by their
bytes, not pair by pair; then the thumbnails themselves decide, without what is alike in any two pictures of a kind:
their fine detail is compared, not where it is light and dark. Flat thumbnails have no detail, and so no say.

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
"""Of a thumbnail, in pixels."""
RADIUS = 7
"""Bits by which the hashes of near-duplicates may differ; 4 were the most of 1,008 JPEGs of 90% the side (nuclei and
facades), 6 and more are rare but for heavy compression. At most 7: two such hashes have a byte in common."""
ALIKE = 0.85
"""Least correlation of the detail: copies as above have 0.98 and more, the most alike photos of one facade 0.62."""
LEAST_CONTRAST = 1.0
"""Of 255 grey levels, standard deviation: what is below is rounding and compression."""
BLOCK = 2**22
"""Hashes compared at once: 32 MB."""
PART = 2**14
"""Thumbnails in work at once: 64 MB as floats."""
MANY = 2**16
"""Pairs of a block of which all are looked at."""

Thumbnails = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]

_FREQUENCIES = 8  # a side of the square of frequencies that a hash takes: 64 bits


def thumbnail(path: str | os.PathLike[str], size: tuple[int, int]) -> Thumbnails:
    """Grey uint8 [32, 32] of an image file, squeezed to a square; JPEGs are decoded at a fraction of their size.

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
        low[:, 0] = 0  # the mean: how light it is
        bits = low > np.median(low, axis=1, keepdims=True)
        hashes[at : at + len(part)] = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    return hashes


def is_flat(thumbnails: Thumbnails) -> npt.NDArray[np.bool_]:
    """Bool [N]: thumbnails of one grey, about which two pictures of nothing would agree."""
    flat = np.empty(len(thumbnails), np.bool_)
    for at in range(0, len(thumbnails), PART):
        part = slice(at, at + PART)
        flat[part] = thumbnails[part].std(axis=(1, 2), dtype=np.float32) < LEAST_CONTRAST
    return flat


def detail(thumbnails: Thumbnails) -> npt.NDArray[np.float32]:
    """Float32 [N, 1024] of mean 0 and length 1: thumbnails less a blurred self; all 0 where that leaves nothing.

    What pictures of a kind share (sky above road, a plate lit from its middle) is blurred, and so gone.
    """
    sharp = thumbnails.astype(np.float32)
    rest = (sharp - _BLUR @ sharp @ _BLUR.T).reshape(len(sharp), -1)
    rest -= rest.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rest, axis=1, keepdims=True)
    return np.where(length < LEAST_CONTRAST * SIDE, 0, rest / np.maximum(length, 1e-6)).astype(np.float32)


def near_duplicates(queries: Thumbnails, base: Thumbnails) -> tuple[Pairs, npt.NDArray[np.float32]]:
    """The best match of each query that shows the same as an image of `base`; queries without one are left out.

    Images whose hashes differ in at most `RADIUS` bits are equal in one of the hash's 8 bytes, so only images that
    share a byte are compared: of 120,000 images about one pair in 32.

    Args:
        queries: uint8 [Q, 32, 32]
        base: uint8 [N, 32, 32]

    Returns:
        Int64 [P, 2], rows of `queries` (rising) and of `base`; float32 [P], the correlation of their detail, at
        least `ALIKE`.
    """
    best = np.full(len(queries), -1, np.int64)
    score = np.zeros(len(queries), np.float32)
    asked, known = (np.flatnonzero(~is_flat(thumbnails)) for thumbnails in (queries, base))
    if not len(asked) or not len(known):
        return np.empty((0, 2), np.int64), np.empty(0, np.float32)
    a, b = perceptual_hashes(queries[asked]), perceptual_hashes(base[known])
    for rows, columns in _share_a_byte(a, b):
        pairs = _closest(a[rows], b[columns])
        q, n = asked[rows[pairs[:, 0]]], known[columns[pairs[:, 1]]]
        for at in range(0, len(q), PART):
            ask, found = q[at : at + PART], n[at : at + PART]
            alike = np.einsum("pd,pd->p", detail(queries[ask]), detail(base[found]))
            for i in np.flatnonzero((alike >= ALIKE) & (alike > score[ask])):
                if alike[i] > score[ask[i]]:  # the same query may stand here twice
                    best[ask[i]], score[ask[i]] = found[i], alike[i]
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
    """Int64 [P, 2]: pairs of at most RADIUS bits apart; each row's nearest alone where there are very many."""
    apart = np.bitwise_count(a[:, None] ^ b[None])
    pairs = np.argwhere(apart <= RADIUS)
    if len(pairs) > MANY:  # frames of one camera: each is like all the others, and one match is enough
        nearest = apart.argmin(axis=1)
        rows = np.flatnonzero(apart[np.arange(len(a)), nearest] <= RADIUS)
        pairs = np.stack([rows, nearest[rows]], axis=1)
    return np.asarray(pairs, np.int64)


def _blur(sigma: float) -> npt.NDArray[np.float32]:
    """Float32 [32, 32]: a Gaussian blur along one axis, the border's weight going to what is inside."""
    away = np.arange(SIDE)[:, None] - np.arange(SIDE)[None]
    weights = np.exp(-0.5 * (away / sigma) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


_BLUR = _blur(2.0)
