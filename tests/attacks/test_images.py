"""Images that aren't what they are taken for. What tests/bad_inputs/test_images.py and tests/data/images/test_read.py
have (cut files, web pages, PDFs, several frames, pipes, links that lead out, PNG bombs ...) isn't repeated here."""

from __future__ import annotations

import io
import json
import os
import socket
import stat
import struct
import tarfile
import threading
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

from data.errors import DataError
from data.images.content import sha256
from data.images.read import check_image, image_size, read_image
from data.samples.dataset import InstanceDataset
from data.storage import join, opener_inside
from data.tables import Category, Split
from tasks.common.config import InputConfig, Params, load_params
from tasks.inference.batches import load_batches
from tasks.ingest import run
from tasks.tools.predict_inputs import Given, load, split_of
from tests.attacks.attack import Attack, check
from tests.data.images.test_read import bomb, chunk
from tests.tasks.conftest import tiny_recipe
from tests.tasks.test_ingest import document

PIXELS = np.random.default_rng(0).integers(0, 255, (10, 20, 3), np.uint8)
SIZE = InputConfig(short_side=32, max_side=64, enlarge=True, tile=None)


def encoded(format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format, **options)
    return buffer.getvalue()


class Place(NamedTuple):
    """A sound source of six images, 20 x 10: two strong, one val, the others weak."""

    root: Path
    logged: pytest.LogCaptureFixture

    @property
    def images(self) -> Path:
        return self.root / "images"

    def params(self, **changes: Any) -> Params:
        recipe = tiny_recipe()
        recipe["ingest"] |= {"images": str(self.images), "annotations": str(self.root), "weak": None}
        recipe["ingest"] |= {"kept_aside": None, **changes}
        (self.root / "params.yaml").write_text(yaml.safe_dump(recipe))
        return load_params(self.root / "params.yaml")

    def ingest(self, **changes: Any) -> str:
        """What is logged; nothing is written where it fails."""
        workspace = self.root / "workspace"
        self.logged.clear()
        try:
            run(self.params(**changes), workspace)
        except Exception:
            assert not (workspace / "dataset").exists()
            raise
        return "\n".join(self.logged.messages)

    def split(self, name: str) -> Split:
        return Split.open(self.root / "workspace/dataset" / name)

    def names(self) -> list[str]:
        """Of the weak images that were taken."""
        return sorted(self.split("weak").images["file_name"].to_pylist())


@pytest.fixture
def place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Place:
    caplog.set_level("INFO")
    (tmp_path / "images").mkdir()
    for n in range(1, 7):
        (tmp_path / "images" / f"{n}.png").write_bytes(encoded("PNG") + bytes([n]))
    for name, (first, count) in {"strong": (1, 2), "val": (3, 1)}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document(first, count, masks=True)))
    return Place(tmp_path, caplog)


def holding(content: bytes) -> Callable[[Place], str]:
    """A weak image has this content: ingested, and by all readers alike."""

    def act(place: Place) -> str:
        file = place.images / "4.png"
        file.write_bytes(content)
        text = place.ingest()
        assert "4.png" in place.names()
        found = check_image(file)
        assert image_size(file) == (found.width, found.height)
        assert load(file, SIZE, like_reference=False).originals[0].shape == (3, found.height, found.width)
        assert read_image(file).shape == (found.height, found.width, 3)
        return text

    return act


def predicted(content: bytes | Callable[[Path], object], name: str = "photo.png") -> Callable[[Place], str]:
    """`points2model predict` is given this file."""

    def act(place: Place) -> str:
        file = place.root / name
        file.write_bytes(content) if isinstance(content, bytes) else content(file)
        split_of([Given(file, name)], [Category(1, "a")])
        return str(load(file, SIZE, like_reference=False).content_sizes)

    return act


def instead(make: Callable[[Path], object]) -> Callable[[Place], str]:
    """Something else is in the place of a weak image."""

    def act(place: Place) -> str:
        file = place.images / "4.png"
        file.unlink()
        make(file)
        return place.ingest()

    return act


def named(*names: str | bytes) -> Callable[[Place], str]:
    """Images of these names, too."""

    def act(place: Place) -> str:
        for n, name in enumerate(names):
            path = os.fsencode(place.images) + b"/" + (name if isinstance(name, bytes) else os.fsencode(name))
            Path(os.fsdecode(path)).write_bytes(encoded("PNG") + bytes([n]))
        text = place.ingest()
        taken = [name for name in place.names() if len(name) != len("1.png")]
        assert sorted(taken) == sorted(names)
        return text

    return act


# --- headers


def jpeg(width: int, height: int) -> bytes:
    """A JPEG that says it has so many pixels."""
    content = bytearray(encoded("JPEG"))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def scans(count: int) -> bytes:
    """A progressive JPEG of so many scans, the last one many times over."""
    content = encoded("JPEG", progressive=True)
    at = content.rindex(b"\xff\xda")
    return content[:at] + content[at:-2] * (count - content.count(b"\xff\xda", 0, at)) + b"\xff\xd9"


def tiff(**entries: int) -> bytes:
    """A grey TIFF of an entry each; `next` is where it says that the next page lies."""
    tags = {
        "width": 256,
        "height": 257,
        "bits": 258,
        "packing": 259,
        "kind": 262,
        "at": 273,
        "rows": 278,
        "bytes": 279,
    }
    usual = {
        "width": 20,
        "height": 10,
        "bits": 8,
        "packing": 1,
        "kind": 1,
        "at": 200,
        "rows": 10,
        "bytes": 200,
    }
    rows = usual | {name: value for name, value in entries.items() if name != "next"}
    body = b"".join(struct.pack("<HHII", tags[name], 4, 1, value) for name, value in rows.items())
    header = b"II*\0" + struct.pack("<IH", 8, len(rows)) + body + struct.pack("<I", entries.get("next", 0))
    return header.ljust(200, b"\0") + bytes(range(200))


def bmp(width: int, height: int) -> bytes:
    content = bytearray(encoded("BMP"))
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


def webp(width: int, height: int) -> bytes:
    content = bytearray(encoded("WEBP", lossless=True))
    (bits,) = struct.unpack("<I", content[21:25])
    content[21:25] = struct.pack("<I", bits & 0xF0000000 | (width - 1) | (height - 1) << 14)
    return bytes(content)


def gif(width: int, height: int) -> bytes:
    content = bytearray(encoded("GIF"))
    content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


def with_chunk(name: bytes, content: bytes) -> bytes:
    """A PNG with one chunk more, behind its header."""
    png = encoded("PNG")
    return png[:33] + chunk(name, content) + png[33:]


def exif(content: bytes) -> bytes:
    """A JPEG with this for its EXIF."""
    body = b"Exif\0\0" + content
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(body) + 2) + body + encoded("JPEG")[2:]


CIRCLE = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x8769, 4, 1, 8) + struct.pack("<I", 8)
"""EXIF whose inner list, and next one, is itself."""
TEXT_ORIENTATION = b"II*\0\x08\0\0\0" + struct.pack("<HHHI4sI", 1, 0x0112, 2, 4, b"six\0", 0)


# --- what changes under way


@contextmanager
def flipping(change: Callable[[bool], object]) -> Iterator[None]:
    """Meanwhile another thread does `change`, again and again, with True and False in turn."""
    stop = threading.Event()

    def go() -> None:
        n = 0
        while not stop.is_set():
            change(n % 2 == 0)
            n += 1
            time.sleep(0)  # lets the other thread go on

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def replace_with(path: Path, make: Callable[[Path], object]) -> None:
    other = path.with_name(path.name + ".new")
    other.unlink(missing_ok=True)
    make(other)
    other.replace(path)


def a_link_that_flips(place: Place) -> str:
    """Between a file of the folder and a secret beside it."""
    secret = place.root / "secret.png"
    secret.write_bytes(encoded("PNG") + b"secret")
    link, inside = place.images / "4.png", place.images / "5.png"
    good, read = sha256(inside), 0
    link.unlink()
    link.symlink_to(inside)
    with flipping(lambda out: replace_with(link, lambda new: new.symlink_to(secret if out else inside))):
        for _ in range(100):
            try:
                found = check_image(join(place.images, "4.png"), opener_inside(place.images))
            except DataError:
                continue
            else:
                assert found.sha256 == good
                read += 1
    return f"read {read} times"


def a_folder_that_flips(place: Place) -> str:
    """Between one of the images and a link to a secret one."""
    for folder, mark in ((place.images / "a", b"good"), (place.root / "secret", b"secret")):
        folder.mkdir()
        (folder / "7.png").write_bytes(encoded("PNG") + mark)
    good, here = sha256(place.images / "a/7.png"), place.images / "a"

    def change(out: bool) -> None:
        if out:
            here.rename(place.root / "aside")
            here.symlink_to(place.root / "secret")
        else:
            here.unlink()
            (place.root / "aside").rename(here)

    with flipping(change):
        for _ in range(100):
            try:
                found = check_image(join(place.images, "a/7.png"), opener_inside(place.images))
            except DataError:
                continue
            else:
                assert found.sha256 == good
    return "only the good one was read"


def a_pipe_that_comes(place: Place) -> str:
    """Where a file was when it was looked at: opening a pipe waits for a writer, for ever."""
    file = place.images / "4.png"
    content = file.read_bytes()
    with flipping(
        lambda pipe: replace_with(file, os.mkfifo if pipe else lambda new: new.write_bytes(content))
    ):
        for _ in range(100):
            with suppress(DataError):
                check_image(file)
    return "not waited for"


def pipe_for_params(place: Place) -> str:
    os.mkfifo(place.root / "params.yaml")
    return str(load_params(place.root / "params.yaml"))


def later(change: Callable[[Path], object], name: str = "1.png") -> Callable[[Place], str]:
    """A strong image is changed after ingest, before the training reads it."""

    def act(place: Place) -> str:
        place.ingest()
        split = place.split("strong")
        data = InstanceDataset(
            split, short_side=32, max_side=64, enlarge=True, augment=None, cache_images=False
        )
        assert len(data[0]["masks"]) == 1
        change(place.images / name)
        failed = [one.fault for _, bad in load_batches(split, range(2), SIZE, 2, 0) for one in bad]
        data[0]
        assert not failed
        return "trained"

    return act


def other_pixels(path: Path) -> None:
    Image.fromarray(255 - PIXELS).save(path)


def rewritten(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    os.utime(path, (0, 0))


def archives(place: Place) -> str:
    with zipfile.ZipFile(place.images / "more.zip", "w") as archive:
        archive.write(place.images / "4.png", "../../evil.png")
    with tarfile.open(place.images / "older.tar.gz", "w:gz") as tar:
        tar.add(place.images / "5.png", "9.png")
    text = place.ingest()
    assert place.names() == ["4.png", "5.png", "6.png"]
    return text


def an_archive_for_a_folder(place: Place) -> str:
    with zipfile.ZipFile(place.root / "all.zip", "w") as archive:
        archive.write(place.images / "4.png", "4.png")
    return place.ingest(images=str(place.root / "all.zip"))


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def a_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("devices are root's to make")


def normal_forms(place: Place) -> str:
    """The record is of the composed form, the file of the other one, as macOS writes them."""
    composed = unicodedata.normalize("NFC", "é.png")
    (place.images / "1.png").rename(place.images / unicodedata.normalize("NFD", composed))
    content = json.loads((place.root / "strong.json").read_text())
    content["images"][0]["file_name"] = composed
    (place.root / "strong.json").write_text(json.dumps(content))
    return place.ingest()


BOMB = zlib.compress(bytes(200 << 20))
LIMIT = "at most 536870912 pixels"
ATTACKS = [
    Attack("sound images", Place.ingest, ("weak: 3 images",), refused=False),
    # --- bombs
    Attack("a JPEG of 65,500 x 65,500", holding(jpeg(65_500, 65_500)), ("4.png", "more than", LIMIT)),
    Attack("a TIFF of 10^5 x 10^5", holding(tiff(width=10**5, height=10**5)), ("4.png", "more than", LIMIT)),
    Attack("a BMP of 10^5 x 10^5", holding(bmp(10**5, 10**5)), ("4.png", "pixels", LIMIT)),
    Attack("a WebP of 16,383 x 16,383", holding(webp(16_383, 16_383)), ("4.png", "damaged or cut")),
    Attack("a GIF of 65,535 x 65,535", holding(gif(65_535, 65_535)), ("4.png", "a GIF")),
    Attack("a bomb for predict", predicted(bomb(10**5, 10**5)), ("photo.png", "pixels", "name a readable image file")),
    Attack("a PNG without a column", holding(bomb(0, 10)), ("4.png",)),
    Attack("a JPEG of 10,000 scans", holding(scans(10_000)), ("4.png", "more than 500 scans")),
    Attack("a JPEG of a scan too many", holding(scans(501)), ("4.png", "more than 500 scans")),
    Attack("a JPEG of as many scans as may be", holding(scans(500)), hidden=("scans",), refused=False),
    Attack("a JPEG of ten scans", holding(encoded("JPEG", progressive=True)), ("3 images",), refused=False),
    Attack("a profile that unpacks to 200 MB", holding(with_chunk(b"iCCP", b"x\0\0" + BOMB)), ("4.png",)),
    Attack("a text that unpacks to 200 MB", holding(with_chunk(b"zTXt", b"x\0\0" + BOMB)), ("4.png",)),
    # --- odd but harmless
    Attack("a broken profile", holding(with_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))), refused=False),
    Attack("EXIF of noise", holding(exif(PIXELS.tobytes())), refused=False),
    Attack("EXIF in a circle", holding(exif(CIRCLE)), refused=False),
    Attack("an orientation that is text", holding(exif(TEXT_ORIENTATION)), refused=False),
    Attack("a JPEG called PNG", holding(encoded("JPEG")), ("3 images",), refused=False),
    Attack("an archive behind a PNG", holding(encoded("PNG") + b"PK\3\4" + bytes(99)), refused=False),
    # --- TIFFs
    Attack("a sound TIFF", holding(tiff()), refused=False),
    Attack("a TIFF whose next page is itself", holding(tiff(next=8)), refused=False),
    Attack("a TIFF whose pixels lie elsewhere", holding(tiff(at=10**9)), ("4.png",)),
    Attack("a TIFF of strips without rows", holding(tiff(rows=0)), ("4.png",)),
    # --- what is no file
    Attack("a socket", instead(a_socket), ("4.png", "not a regular file")),
    Attack("a device", instead(a_device), ("4.png", "not a regular file")),
    Attack("a link to a device", instead(lambda p: p.symlink_to("/dev/zero")), ("4.png", "leaves the image root")),
    Attack("a pipe for predict", predicted(os.mkfifo), ("photo.png", "not a regular file")),
    Attack("a folder for predict", predicted(Path.mkdir), ("photo.png", "not a regular file")),
    Attack("a link in a circle for predict", predicted(lambda p: p.symlink_to(p)), ("photo.png", "unreadable")),
    Attack("a link to a file of the kernel", predicted(lambda p: p.symlink_to("/proc/self/mem")), ("photo.png",)),
    # --- what changes under way
    Attack("a link that flips to a secret", a_link_that_flips, ("read",), refused=False),
    Attack("a folder that flips to a secret", a_folder_that_flips, ("good",), refused=False),
    Attack("a pipe that comes in a file's place", a_pipe_that_comes, ("not waited for",), refused=False),
    Attack("a pipe for params.yaml", pipe_for_params, ("params.yaml", "not a regular file")),
    Attack("other pixels of the same size", later(other_pixels), ("1.png", "another content", "ingest stage again")),
    Attack("the same bytes, written anew", later(rewritten), ("trained",), refused=False),
    Attack("a link in its place", later(
        lambda p: (p.rename(p.parents[1] / "out.png"), p.symlink_to(p.parents[1] / "out.png"))
    ), ("leaves the image root",)),
    # --- archives and names
    Attack("archives among the images", archives, ("2 archives", "more.zip", "unpack"), refused=False),
    Attack("an archive for the folder of images", an_archive_for_a_folder, ("all.zip", "expected a folder")),
    Attack("a name with a line's end and a colour", named("a\n\x1b[31mb.png"), hidden=("\x1b",), refused=False),
    Attack("a name of 255 bytes", named("é" * 125 + "x.png"), refused=False),
    Attack("names that differ in case", named("aaa.png", "AAA.png", "aaa.PNG"), refused=False),
    Attack("names that differ in normal form", named(
        unicodedata.normalize("NFC", "éé.png"), unicodedata.normalize("NFD", "éé.png")
    ), refused=False),
    Attack("a record of the other normal form", normal_forms, ("image 1", "no such file")),
]  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_images(attack: Attack, place: Place) -> None:
    check(attack, place)
