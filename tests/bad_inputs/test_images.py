"""Bad images and bad sources: each ends in a report that says what to do, exit code 1 (or 75), and no output."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from data.remote import s3
from tasks.common.stage_main import stage_main
from tasks.ingest import run
from tests.conftest import Bucket
from tests.data.images.test_read import bomb
from tests.tasks.conftest import tiny_recipe
from tests.tasks.test_ingest import Documents, document


def encoded(format: str, **options: Any) -> bytes:
    """A 20 x 10 picture."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (10, 20, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", exif=exif)


def floats() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((10, 20), np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


def damaged() -> bytes:
    content = bytearray(encoded("PNG"))
    content[len(content) // 2] ^= 255
    return bytes(content)


OTHER = Image.fromarray(np.zeros((10, 20, 3), np.uint8))
# name, bytes of images/1.png, what the report says
FILES: list[tuple[str, bytes, str]] = [
    ("zero bytes", b"", "an empty file"),
    ("cut png", encoded("PNG")[:-30], "a truncated file"),
    ("cut jpeg", encoded("JPEG")[:-30], "a truncated file"),
    ("cut webp", encoded("WEBP")[:-30], "a truncated file"),
    ("cut tiff", encoded("TIFF")[:-30], "undecodable"),
    ("cut bmp", encoded("BMP")[:-30], "damaged or cut"),
    ("damaged png", damaged(), "damaged or cut"),
    ("signature alone", b"\x89PNG\r\n\x1a\n", "a truncated file"),
    ("web page", b"<!DOCTYPE html><html>404</html>", "markup, such as a web page"),
    ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "markup, such as a web page or SVG"),
    ("gif", encoded("GIF"), "a GIF"),
    ("pdf", b"%PDF-1.7\n", "a PDF"),
    ("archive", b"PK\3\4aaaaaaaa", "a zip archive"),
    ("text", b"not an image at all", "it begins with b'not an i'"),
    ("animated png", encoded("PNG", save_all=True, append_images=[OTHER]), "several frames or pages"),
    ("animated webp", encoded("WEBP", save_all=True, append_images=[OTHER]), "several frames or pages"),
    ("two pages", encoded("TIFF", save_all=True, append_images=[OTHER]), "several frames or pages"),
    ("floats", floats(), "pixels of kind 'F'; expected grey, palette, RGB or CMYK"),
    ("bomb", bomb(60_000, 12_000), "60000 x 12000 pixels; expected at most 536870912 pixels"),
    ("great bomb", bomb(2**31 - 1, 2**31 - 1), "expected at most 536870912 pixels"),
    ("turned by exif", turned(), "10 x 20 pixels as shown (EXIF orientation 6 turns it); expected 20 x 10"),
]


def wrong_size(folder: Path, documents: Documents) -> None:
    documents["strong"]["images"][0]["width"] = 21


def missing(folder: Path, documents: Documents) -> None:
    (folder / "1.png").unlink()


def a_folder(folder: Path, documents: Documents) -> None:
    (folder / "1.png").unlink()
    (folder / "1.png").mkdir()


def a_pipe(folder: Path, documents: Documents) -> None:
    (folder / "1.png").unlink()
    os.mkfifo(folder / "1.png")


def a_link_out(folder: Path, documents: Documents) -> None:
    (folder.parent / "secret.png").write_bytes((folder / "1.png").read_bytes())
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to("../secret.png")


def a_loop(folder: Path, documents: Documents) -> None:
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to("1.png")


def names(name: str) -> Callable[[Path, Documents], None]:
    def change(folder: Path, documents: Documents) -> None:
        documents["strong"]["images"][0]["file_name"] = name

    return change


PLACES: list[tuple[str, Callable[[Path, Documents], None], str]] = [
    ("wrong size", wrong_size, "20 x 10 pixels; expected 21 x 10, as its record says"),
    ("missing", missing, "no such file"),
    ("a folder", a_folder, "not a regular file"),
    ("a pipe", a_pipe, "not a regular file"),
    ("a link out", a_link_out, "a path that leaves the image root"),
    ("a loop of links", a_loop, "a path that leaves the image root"),
    ("dots", names("../../etc/passwd"), "file_name '../../etc/passwd'; expected a path under the image root"),
    ("absolute", names("/etc/passwd"), "expected a path under the image root"),
    ("backslashes", names("..\\secret.png"), "expected a path under the image root"),
    ("drive", names("C:\\a.png"), "expected a path under the image root"),
    ("zero in name", names("a\0.png"), "expected a path under the image root"),
    ("long name", names("a" * 300 + ".png"), "unreadable (File name too long)"),
]


@pytest.fixture
def documents() -> Documents:
    return {
        "strong": document(1, 2, masks=True),
        "val": document(3, 1, masks=True),
        "weak": document(4, 1, False),
    }


@pytest.fixture
def ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs `python -m tasks.ingest` as its command does; it must fail without output. Returns what it says."""

    def go(code: int = 1, **settings: Any) -> str:
        recipe = tiny_recipe()
        recipe["ingest"] |= {"images": "images", "annotations": "labels", "kept_aside": None} | settings
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["ingest"])
        with pytest.raises(SystemExit) as left:
            stage_main("ingest", run)
        assert left.value.code == code
        kept = [path for path in (tmp_path / "workspace").rglob("*") if "runs" not in path.parts]
        assert kept == []
        said = capsys.readouterr().err
        assert "; expected " in said and " Next: " in said and "Traceback" not in said
        return said

    return go


def lay_out(folder: Path, documents: Documents) -> Path:
    """Images and annotation files in a folder; returns that of the images."""
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for name, content in documents.items():
        (folder / "labels" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        for row in content["images"]:
            if len(row["file_name"]) == 5:
                (folder / "images" / row["file_name"]).write_bytes(encoded("PNG"))
    return folder / "images"


@pytest.mark.parametrize(
    ("name", "content", "said"), FILES, ids=[case[0].replace(" ", "_") for case in FILES]
)
def test_bad_files(
    tmp_path: Path, documents: Documents, ends: Callable[..., str], name: str, content: bytes, said: str
) -> None:
    (lay_out(tmp_path, documents) / "1.png").write_bytes(content)
    text = ends()
    assert "images/1.png: image 1: found" in text and said in text


@pytest.mark.parametrize(
    ("name", "spoil", "said"), PLACES, ids=[case[0].replace(" ", "_") for case in PLACES]
)
def test_bad_places(
    tmp_path: Path, documents: Documents, ends: Callable[..., str], name: str, spoil: Any, said: str
) -> None:
    spoil(lay_out(tmp_path, documents), documents)
    for split, content in documents.items():
        (tmp_path / "labels" / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
    text = ends()
    assert "image 1" in text and said in text


def test_all_bad_files_are_told_at_once(
    tmp_path: Path, documents: Documents, ends: Callable[..., str]
) -> None:
    images = lay_out(tmp_path, documents)
    for n in range(1, 5):
        (images / f"{n}.png").write_bytes(FILES[n][1])
    assert all(f"image {n}: found" in ends() for n in range(1, 5))


def gone(bucket: Bucket) -> None:
    bucket.client.delete_object(Bucket=bucket.name, Key="images/1.png")


def empty(bucket: Bucket) -> None:
    bucket.fill({"images/1.png": b""})


def flipped(bucket: Bucket) -> None:
    bucket.proxy.plan = lambda method, path, nth: "flip" if path.endswith("images/1.png") else None


def cut(bucket: Bucket) -> None:
    bucket.fill({"images/1.png": encoded("PNG")[:-30]})


def failing(bucket: Bucket) -> None:
    bucket.proxy.plan = lambda method, path, nth: "500"


def nothing(bucket: Bucket) -> None:
    pass


BUCKETS: list[tuple[str, Callable[[Bucket], None], dict[str, str], str]] = [
    ("object gone", gone, {}, "images/1.png: image 1: found no such object"),
    ("empty object", empty, {}, "images/1.png: image 1: found an empty file"),
    ("cut object", cut, {}, "images/1.png: image 1: found a truncated file"),
    ("always another byte", flipped, {}, "content that doesn't match its ETag"),
    ("server always fails", failing, {}, "InternalError"),
    ("no bucket", nothing, {"images": "s3://no-such-bucket-at-all/x"}, "correct the bucket's name"),
    ("no prefix", nothing, {"images": "s3://{bucket}/pictures"}, "found no object there"),
    ("no labels", nothing, {"annotations": "s3://{bucket}/lables"}, "found no object there"),
    ("no such file", nothing, {"val": "vaal.json"}, "labels/vaal.json: file: found no such file"),
]


@pytest.mark.parametrize(
    ("name", "spoil", "settings", "said"), BUCKETS, ids=[case[0].replace(" ", "_") for case in BUCKETS]
)
def test_bad_buckets(
    bucket: Bucket,
    documents: Documents,
    ends: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    spoil: Callable[[Bucket], None],
    settings: dict[str, str],
    said: str,
) -> None:
    monkeypatch.setattr(s3, "BACKOFF_S", 0.01)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    rows = [row for content in documents.values() for row in content["images"]]
    # Bytes that differ: one content is downloaded once, whatever its keys.
    bucket.fill({f"images/{row['file_name']}": encoded("PNG") + bytes([row["id"]]) for row in rows})
    bucket.fill(
        {f"labels/{split}.json": json.dumps(content).encode() for split, content in documents.items()}
    )
    spoil(bucket)
    at = {"images": f"s3://{bucket.name}/images", "annotations": f"s3://{bucket.name}/labels"}
    # 75: what may pass by itself (EX_TEMPFAIL), so that the flow tries again.
    code = 75 if name == "server always fails" else 1
    assert said in ends(
        code, **at | {key: value.format(bucket=bucket.name) for key, value in settings.items()}
    )
