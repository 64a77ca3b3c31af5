"""Copies of an image are found, other images of the same kind are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from data.errors import DataError
from data.images.similarity import (
    ALIKE,
    RADIUS,
    SIDE,
    _closest,
    detail,
    is_flat,
    near_duplicates,
    perceptual_hashes,
    thumbnail,
)

Image = np.ndarray


def plate(seed: int) -> Image:
    """A microscope's picture: the same lamp and the same kind of cells, at other places; uint8 [180, 240, 3]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:180, :240]
    light = 60 - 0.1 * np.hypot(rows - 90, columns - 120)
    for y, x, radius in zip(
        rng.uniform(0, 180, 40), rng.uniform(0, 240, 40), rng.uniform(4, 9, 40), strict=True
    ):
        light = light + 70 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / radius**2)
    noisy = light + rng.normal(0, 4, light.shape)
    return np.repeat(np.clip(noisy, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def resized(image: Image, factor: float) -> Image:
    height, width = image.shape[:2]
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (round(width * factor), round(height * factor)), interpolation=how))


def of_file(folder: Path, image: Image, suffix: str = ".png", quality: int = 75) -> Image:
    path = folder / f"image{suffix}"
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    assert cv2.imwrite(str(path), image, options)
    return thumbnail(path, (image.shape[1], image.shape[0]))


VARIANTS: dict[str, Callable[[Path, Image], Image]] = {
    "the same file": of_file,
    "a JPEG of 90% the side": lambda folder, image: of_file(folder, resized(image, 0.9), ".jpg"),
    "a JPEG of 110% the side": lambda folder, image: of_file(folder, resized(image, 1.1), ".jpg"),
    "a JPEG of half the side": lambda folder, image: of_file(folder, resized(image, 0.5), ".jpg", 90),
    "a JPEG of 4 times the side, decoded at a fraction": lambda folder, image: of_file(
        folder, resized(image, 4), ".jpg"
    ),
    "a poor JPEG": lambda folder, image: of_file(folder, image, ".jpg", 40),
    "a brighter WebP": lambda folder, image: of_file(folder, cv2.convertScaleAbs(image, alpha=1.15), ".webp"),
}


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Image], Image]:
    """60 pictures and their thumbnails [60, 32, 32]."""
    folder = tmp_path_factory.mktemp("plates")
    images = [plate(seed) for seed in range(60)]
    return images, np.stack([of_file(folder, image) for image in images])


@pytest.mark.parametrize("variant", VARIANTS)
def test_copies_are_found(tmp_path: Path, plates: tuple[list[Image], Image], variant: str) -> None:
    images, thumbnails = plates
    copies = np.stack([VARIANTS[variant](tmp_path, image) for image in images[:12]])
    pairs, score = near_duplicates(copies, thumbnails)
    assert pairs.tolist() == [[i, i] for i in range(12)]
    assert (score > 0.95).all()


def test_other_pictures_of_the_same_microscope_are_not(plates: tuple[list[Image], Image]) -> None:
    _, thumbnails = plates
    pairs, _ = near_duplicates(thumbnails[:30], thumbnails[30:])
    assert pairs.tolist() == []


def test_flat_pictures_are_like_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey = [
        np.full((64, 64, 3), 17, np.uint8) + rng.integers(0, 2, (64, 64, 3)).astype(np.uint8)
        for _ in range(4)
    ]
    thumbnails = np.stack([of_file(tmp_path, image) for image in grey])
    assert is_flat(thumbnails).all()
    assert len(near_duplicates(thumbnails, thumbnails)[0]) == 0
    # Not flat, but without detail: a ramp, as many pictures of a sky have it.
    ramp = np.repeat(np.linspace(90, 110, 32)[:, None], 32, axis=1).round().astype(np.uint8)[None]
    assert not is_flat(ramp).any()
    assert len(near_duplicates(ramp, ramp)[0]) == 0


def brute_force(queries: Image, base: Image) -> dict[int, float]:
    """The best score of each query, pair by pair."""
    a, b = perceptual_hashes(queries), perceptual_hashes(base)
    one, other = detail(queries), detail(base)
    found: dict[int, float] = {}
    for i in range(len(queries)):
        for j in range(len(base)):
            score = float(one[i] @ other[j])
            if int(a[i] ^ b[j]).bit_count() <= RADIUS and score >= ALIKE:
                found[i] = max(score, found.get(i, 0.0))
    return found


@pytest.mark.parametrize("layout", [0.0, 60.0])
def test_the_same_as_pair_by_pair(layout: float) -> None:
    """Also where all pictures share a layout, and so parts of their hashes."""
    rng = np.random.default_rng(3)
    shared = 128 + layout * np.linspace(-1, 1, SIDE)[:, None]
    base = np.clip(shared + 25 * rng.normal(size=(300, SIDE, SIDE)), 0, 255).astype(np.uint8)
    noise = rng.choice([2, 8, 14], size=(100, 1, 1)) * rng.normal(size=(100, SIDE, SIDE))
    queries = np.clip(base[:100].astype(float) + noise, 0, 255).astype(np.uint8)
    pairs, score = near_duplicates(queries, base)
    expected = brute_force(queries, base)
    assert 30 < len(expected) <= 100
    assert dict(zip(pairs[:, 0].tolist(), score.tolist(), strict=True)) == pytest.approx(expected, abs=1e-5)


def test_hashes_may_differ_by_just_the_radius() -> None:
    bits = np.array([(1 << count) - 1 for count in (0, 6, 7, 8)], np.uint64)
    assert RADIUS == 7
    pairs = _closest(np.zeros(2, np.uint64), bits).tolist()
    assert pairs == [[row, column] for row in range(2) for column in range(3)]


def test_frames_of_one_camera_don_t_take_the_memory_of_all_their_pairs() -> None:
    rng = np.random.default_rng(4)
    scene = rng.integers(0, 255, (SIDE, SIDE))
    frames = np.clip(scene + rng.normal(0, 2, size=(1200, SIDE, SIDE)), 0, 255).astype(np.uint8)
    pairs, _ = near_duplicates(frames[:400], frames[400:])
    assert pairs[:, 0].tolist() == list(range(400))


@pytest.mark.parametrize("empty", ["queries", "base"])
def test_no_images(empty: str) -> None:
    some = np.random.default_rng(0).integers(0, 255, (3, SIDE, SIDE)).astype(np.uint8)
    queries, base = (some[:0], some) if empty == "queries" else (some, some[:0])
    pairs, score = near_duplicates(queries, base)
    assert pairs.shape == (0, 2) and score.shape == (0,)


def test_what_is_no_image_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8 nothing \xff\xd9")
    with pytest.raises(DataError, match=r"a\.jpg"):
        thumbnail(path, (64, 64))


def test_real_microscopes(shared_dir: Path, tmp_path: Path) -> None:
    """Nuclei: no two of 40 pictures are taken for one, each smaller JPEG is found."""
    folder = shared_dir / "data" / "nuclei" / "images"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    images = [cv2.imread(str(path)) for path in sorted(folder.iterdir())[:40]]
    thumbnails = np.stack([of_file(tmp_path, image) for image in images])
    copies = np.stack([of_file(tmp_path, resized(image, 0.9), ".jpg") for image in images])
    pairs, _ = near_duplicates(copies, thumbnails)
    assert pairs.tolist() == [[i, i] for i in range(40)]
    assert len(near_duplicates(thumbnails[:20], thumbnails[20:])[0]) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_thumbnail_is_that_of_the_image_as_shown(tmp_path: Path, orientation: int) -> None:
    """Also where a JPEG is decoded at a fraction of its size, and so not by `read_image`."""
    stored, exif = PIL.Image.fromarray(plate(0)).resize((960, 720)), PIL.Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    with PIL.Image.open(tmp_path / "turned.jpg") as opened:
        shown = np.asarray(PIL.ImageOps.exif_transpose(opened))
    size = (shown.shape[1], shown.shape[0])
    found = thumbnail(tmp_path / "turned.jpg", size).astype(int)
    expected = cv2.resize(cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    assert np.abs(found - expected).max() <= 3
