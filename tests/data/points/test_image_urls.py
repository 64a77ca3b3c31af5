from __future__ import annotations

import base64

import pytest

from data.points.image_urls import image_names

PRESIGNED = base64.b64encode(b"s3://bucket/fish/046.png").decode()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("a.png", ("a.png",)),
        ("0a1b2c3d-a.png", ("0a1b2c3d-a.png", "a.png")),
        ("night/a.png", ("night/a.png",)),  # day/a.png is another image
        ("night/a.png?q=1", ("night/a.png?q=1", "night/a.png")),
        ("/data/upload/18/a.png", ("data/upload/18/a.png", "a.png")),
        ("/data/upload/18/1a2b3c4d-a.png", ("data/upload/18/1a2b3c4d-a.png", "1a2b3c4d-a.png", "a.png")),
        ("/data/local-files/?d=night/a%20b.png", ("night/a b.png",)),
        ("s3://bucket/night/a.png", ("night/a.png",)),
        ("https://host/in/a%20b.png?token=1", ("in/a%20b.png", "in/a b.png")),
        (f"/tasks/7/presign/?fileuri={PRESIGNED}", ("fish/046.png",)),
        ("/x?fileuri=!!", ("x?fileuri=!!", "x")),
        ("http://[bad", ("http://[bad",)),
        ("", ()),
    ],
)
def test_names_in_addresses(address: str, expected: tuple[str, ...]) -> None:
    assert image_names((address,)) == expected


def test_several_addresses_come_in_their_order_once() -> None:
    assert image_names(("in/a.png", "a.png", "b.png")) == ("in/a.png", "a.png", "b.png")
