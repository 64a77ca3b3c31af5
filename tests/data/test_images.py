from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.errors import DataError
from data.images import image_size, read_image, sha256

RED_CORNER = np.zeros((20, 30, 3), dtype=np.uint8)
RED_CORNER[:6, :6] = (250, 10, 10)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_images_are_rgb_whatever_the_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    Image.fromarray(RED_CORNER).save(path)
    image = read_image(path)
    assert (image.shape, image.dtype) == ((20, 30, 3), np.uint8)
    assert image[2, 2].astype(int) == pytest.approx([250, 10, 10], abs=25)
    assert image_size(path) == (30, 20)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_exif_orientation_is_applied_to_pixels_and_size_alike(
    tmp_path: Path, suffix: str, orientation: int, corner: tuple[int, int]
) -> None:
    path = tmp_path / f"image{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RED_CORNER).save(path, exif=exif)
    image = read_image(path)
    assert image_size(path) == (image.shape[1], image.shape[0])
    assert image[corner][0] > 200
    assert [image[at][0] > 200 for at in ((0, 0), (0, -1), (-1, 0), (-1, -1))].count(True) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_other_pixel_kinds_become_8_bit_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.png"
    bright = np.where(np.arange(30) < 15, 1, 0) * np.ones((20, 1), dtype=int)
    if mode == "I;16":
        Image.fromarray((bright * 40_000).astype(np.uint16)).save(path)
    else:
        grey = Image.fromarray((bright * 255).astype(np.uint8))
        (grey if mode in ("1", "L", "LA") else grey.convert("RGB")).convert(mode).save(path)
    image = read_image(path)
    assert (image.shape, image.dtype) == ((20, 30, 3), np.uint8)
    assert image[0, 0].tolist() == [40_000 // 256 if mode == "I;16" else 255] * 3
    assert image[0, -1].tolist() == [0, 0, 0]


def truncated(suffix: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        whole = path.with_name(f"whole{suffix}")
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
        path.write_bytes(whole.read_bytes()[:-200])

    return make


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.touch(), "empty file"),
        (lambda path: path.write_bytes(b"\x89PNG"), "truncated"),
        (lambda path: path.write_text("<svg/>"), "not an image"),
        (lambda path: path.mkdir(), "unreadable"),
        (truncated(".png"), "truncated"),
        (truncated(".jpg"), "truncated"),
    ],
)
def test_faulty_files_are_refused_by_name(tmp_path: Path, make: Callable[[Path], None], found: str) -> None:
    path = tmp_path / "photo 7.png"
    make(path)
    with pytest.raises(DataError, match=f"photo 7.png.*{found}"):
        read_image(path)


@pytest.mark.parametrize("content", [None, b"", b"text", b"\x89PNG\r\n\x1a\n"])
def test_sizes_of_faulty_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "photo.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"photo\.png"):
        image_size(path)


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * 100_000)
    assert sha256(path) == hashlib.sha256(b"x" * 100_000).hexdigest()
    with pytest.raises(DataError, match="no such file"):
        sha256(tmp_path / "b.png")
