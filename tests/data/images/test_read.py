from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from data.annotations.coco import checks
from data.errors import DataError
from data.images import read as images
from data.images.content import ImageError, sha256
from data.images.read import CheckedImage, check_image, image_size, read_image

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
@pytest.mark.parametrize(
    ("orientation", "corner"),
    [
        (1, (0, 0)),
        (2, (0, -1)),
        (3, (-1, -1)),
        (4, (-1, 0)),
        (5, (0, 0)),
        (6, (0, -1)),
        (7, (-1, -1)),
        (8, (-1, 0)),
    ],
)
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
    with Image.open(path) as opened:
        shown = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert image.shape == shown.shape
    assert np.abs(image.astype(int) - shown).max() <= (0 if suffix in (".png", ".tif") else 30)


XMP_TURNED = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("kind", ["xmp", "raw profile", "no such orientation"])
def test_only_exif_turns_an_image(tmp_path: Path, kind: str) -> None:
    """Browsers and annotation tools go by nothing else; Pillow's getexif does."""
    path, picture = tmp_path / "image", Image.fromarray(RED_CORNER)
    exif = Image.Exif()
    exif[0x0112] = 9 if kind == "no such orientation" else 6
    if kind == "xmp":
        picture.save(path, "JPEG", xmp=XMP_TURNED)
    elif kind == "raw profile":
        text, content = PngInfo(), exif.tobytes()
        text.add_text("Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n", zip=True)
        picture.save(path, "PNG", pnginfo=text)
    else:
        picture.save(path, "JPEG", exif=exif)
    with Image.open(path) as opened:
        assert opened.getexif().get(0x0112) == exif[0x0112]
    assert (read_image(path).shape, image_size(path)) == ((20, 30, 3), (30, 20))
    checked = check_image(path)
    assert (checked.width, checked.height, checked.orientation) == (30, 20, 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_film_behind_a_photograph_may_hold_any_bytes(tmp_path: Path, seed: int) -> None:
    """Motion photos of phones: an MP4 follows the end mark."""
    film = b"\0\0\0\x18ftypmp42" + np.random.default_rng(seed).bytes(200_000)
    photograph = encoded(NOISE, "JPEG", exif=thumbnailed())
    path = tmp_path / "image.jpg"
    path.write_bytes(photograph + film)
    assert read_image(path).shape == NOISE.shape
    path.write_bytes(photograph[: -len(photograph) // 3] + b"\0" * 100)
    with pytest.raises(ImageError, match="truncated"):
        check_image(path)


def thumbnailed() -> bytes:
    """EXIF with what looks like a JPEG, end mark and all: it is the segment's, not the image's."""
    exif = Image.Exif()
    exif[0x010E] = "thumbnail \xff\xd8\xff\xd9"
    return exif.tobytes() + b"\xff\xd8\xff\xda\0\2\xff\xd9"


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


def encoded(pixels: np.ndarray | Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, format, **options)
    return buffer.getvalue()


def gradient() -> Image.Image:
    y, x = np.mgrid[0:48, 0:64]
    return Image.fromarray(np.stack([x * 4, y * 5, 128 + 0 * x], axis=-1).astype(np.uint8))


def half_seen() -> Image.Image:
    image = gradient().convert("RGBA")
    image.putalpha(100)
    return image


KINDS: list[tuple[str, bytes]] = [
    ("cmyk jpeg", encoded(gradient().convert("CMYK"), "JPEG", quality=97)),
    ("cmyk tiff", encoded(gradient().convert("CMYK"), "TIFF")),
    ("ycbcr tiff", encoded(gradient().convert("YCbCr"), "TIFF")),
    ("jpeg in tiff", encoded(gradient(), "TIFF", compression="jpeg", quality=97)),
    ("lzw tiff", encoded(gradient(), "TIFF", compression="tiff_lzw")),
    ("rgba tiff", encoded(half_seen(), "TIFF")),
    ("rgba png", encoded(half_seen(), "PNG")),
    ("rgba webp", encoded(half_seen(), "WEBP", lossless=True)),
    ("progressive jpeg", encoded(gradient(), "JPEG", progressive=True, quality=97)),
    ("palette png", encoded(gradient().quantize(250), "PNG", transparency=5)),
    ("palette tiff", encoded(gradient().quantize(250), "TIFF")),
    ("palette bmp", encoded(gradient().quantize(250), "BMP")),
    ("mpo", encoded(gradient(), "MPO", save_all=True, append_images=[gradient().rotate(180)], quality=97)),
]


@pytest.mark.parametrize(("kind", "content"), KINDS, ids=[kind for kind, _ in KINDS])
def test_colours_are_those_of_the_picture_whatever_they_are_kept_as(
    tmp_path: Path, kind: str, content: bytes
) -> None:
    path = tmp_path / "image.jpg"  # the suffix is not believed
    path.write_bytes(content)
    found = read_image(path).astype(int)
    assert np.abs(found - np.asarray(gradient())).mean() < (8 if "palette" in kind else 3)
    assert check_image(path) == CheckedImage(64, 48, 1, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path, format: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded((np.arange(64) * 1000 * np.ones((8, 1), int)).astype(np.uint16), format))
    assert read_image(path)[3, :, 1].tolist() == [(1000 * i) >> 8 for i in range(64)]
    assert check_image(path)[:2] == (64, 8)


NOISE = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
CUT: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("WEBP", {"lossless": True}),
    ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "jpeg"}),
    ("TIFF", {"compression": "tiff_deflate"}),
]  # fmt: skip


@pytest.mark.parametrize(("format", "options"), CUT, ids=str)
def test_a_file_cut_anywhere_is_refused_by_both_ways_of_reading(
    tmp_path: Path, format: str, options: dict[str, Any]
) -> None:
    whole = encoded(NOISE, format, **options)
    path = tmp_path / "image"
    cuts = [*np.linspace(1, len(whole) - 13, 17).astype(int), len(whole) - 12, len(whole) - 4, len(whole) - 1]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        for read in (read_image, check_image):
            with pytest.raises(ImageError) as caught:
                read(path)
            assert caught.value.reason in ("truncated", "undecodable", "not_an_image"), cut
    path.write_bytes(whole + b"appended by a camera")
    assert read_image(path).shape == (40, 56, 3)
    assert check_image(path)[:2] == (56, 40)


@pytest.mark.parametrize(("format", "options"), CUT, ids=str)
def test_what_the_check_passes_can_be_read(tmp_path: Path, format: str, options: dict[str, Any]) -> None:
    """Damaged files: those without a checksum may pass, but then they must load as well."""
    whole = bytearray(encoded(NOISE, format, **options))
    path = tmp_path / "image"
    random = np.random.default_rng(1)
    passed = 0
    for _ in range(60):
        damaged = whole.copy()
        for at in random.integers(0, len(whole), random.integers(1, 6)):
            damaged[at] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            checked = check_image(path)
        except ImageError:
            continue
        passed += 1
        assert read_image(path).shape == (checked.height, checked.width, 3)
    assert passed == 0 or format != "PNG"


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it has so many pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def cut(content: bytes) -> bytes:
    return content[:-200]


FAULTY: list[tuple[str, bytes | None, str, str]] = [
    ("missing", None, "no such file", "missing"),
    ("empty", b"", "empty file", "empty"),
    ("signature alone", b"\x89PNG\r\n\x1a\n", "a truncated file", "truncated"),
    ("svg", b"<svg/>", "not an image.*markup", "not_an_image"),
    ("gif", encoded(gradient(), "GIF"), "not an image .a GIF", "not_an_image"),
    ("pdf", b"%PDF-1.4 ...", "not an image .a PDF", "not_an_image"),
    ("avif", encoded(gradient(), "AVIF"), "not an image .HEIC or AVIF", "not_an_image"),
    ("cut png", cut(encoded(NOISE, "PNG")), "truncated", "truncated"),
    ("cut jpeg", cut(encoded(NOISE, "JPEG")), "truncated", "truncated"),
    ("animated png", encoded(gradient(), "PNG", save_all=True, append_images=[half_seen().convert("RGB")]),
     "several frames", "frames"),
    ("animated webp", encoded(gradient(), "WEBP", save_all=True, append_images=[gradient().rotate(90)]),
     "several frames", "frames"),
    ("two pages", encoded(gradient(), "TIFF", save_all=True, append_images=[gradient()]), "pages", "frames"),
    ("float", encoded(np.ones((8, 8), np.float32), "TIFF"), "pixels of kind 'F'", "samples"),
    ("32 bits", encoded(np.ones((8, 8), np.int32), "TIFF"), "pixels of kind 'I'", "samples"),
    ("bomb", bomb(30_000, 30_000), "30000 x 30000 pixels", "too_large"),
    ("great bomb", bomb(2**30, 2**30), "more than", "too_large"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "found", "reason"), FAULTY, ids=[name.replace(" ", "_") for name, *_ in FAULTY]
)
def test_faulty_files_are_refused_by_name(
    tmp_path: Path, name: str, content: bytes | None, found: str, reason: str
) -> None:
    path = tmp_path / "photo 7.png"
    if content is not None:
        path.write_bytes(content)
    for read in (read_image, check_image):
        with pytest.raises(ImageError, match=f"photo 7.png.*({found})") as caught:
            read(path)
        assert caught.value.reason in reason.split("|")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "photo.png")
    for read in (read_image, check_image, image_size):
        with pytest.raises(ImageError, match="not a regular file"):
            read(tmp_path / "photo.png")


def test_one_limit_of_pixels_for_files_and_annotations() -> None:
    assert images.MAX_PIXELS == checks.MAX_PIXELS == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_the_check_tells_the_size_as_shown(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image{suffix}"
    gradient().save(path, exif=exif)
    checked = check_image(path)
    assert (checked.height, checked.width) == read_image(path).shape[:2]
    assert (checked.width, checked.height) == ((48, 64) if orientation > 4 else (64, 48))
    if suffix != ".tif":  # Pillow takes it out of a TIFF once it is applied
        assert checked.orientation == orientation


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
