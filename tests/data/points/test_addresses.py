from __future__ import annotations

import base64

import pytest

from data.images.addresses import image_names
from data.points.lookup import Images
from data.points.record import Problem
from data.tables import Split

PRESIGNED = base64.b64encode(b"s3://bucket/fish/046.png").decode()

OF_URLS = base64.urlsafe_b64encode(b"s3://bucket/fish/?>~.png").decode()
assert "-" in OF_URLS or "_" in OF_URLS


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
        ("/x?fileuri=!!", ("x?fileuri=!!",)),
        # What # and ? cut off is part of a key, and what they leave is no stem.
        ("s3://bucket/scan#2.png", ("scan#2.png",)),
        ("gs://bucket/in/scan?2.png", ("in/scan?2.png",)),
        ("s3://bucket/run#1/a%20b.png", ("run#1/a%20b.png", "run#1/a b.png")),
        ("s3://bucket//a.png?v=1", ("a.png?v=1", "a.png")),
        (
            "/data/upload/18/1a2b3c4d-scan#2.png",
            ("data/upload/18/1a2b3c4d-scan#2.png", "1a2b3c4d-scan#2.png", "scan#2.png"),
        ),
        ("https://host/scan#2.png", ("scan#2.png",)),
        ("https://host/a.png#top", ("a.png#top", "a.png")),
        ("https://host/a?size=full", ("a",)),
        ("/proxy?of=s3://bucket/b.png", ()),
        # The server of local files reads + as a space; who writes the address by hand doesn't.
        ("/data/local-files/?d=f/a+b.png", ("f/a b.png", "f/a+b.png")),
        ("/data/local-files/?d=f/a%2Bb%20c.png", ("f/a+b c.png",)),
        ("/data/local-files/?d=f/scan&2.png", ("f/scan&2.png",)),
        ("/data/local-files/?d=f/scan#2.png", ("f/scan#2.png",)),
        ("/data/local-files/?id=7&d=/f/a.png&x=1", ("f/a.png&x=1", "f/a.png")),
        (f"/tasks/7/presign/?fileuri={OF_URLS}", ("fish/?>~.png",)),
        ("http://[bad", ("http://[bad",)),
        ("", ()),
    ],
)
def test_names_in_addresses(address: str, expected: tuple[str, ...]) -> None:
    assert image_names((address,)) == expected


def test_several_addresses_come_in_their_order_once() -> None:
    assert image_names(("in/a.png", "a.png", "b.png")) == ("in/a.png", "a.png", "b.png")


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/a#2.png",
        "/data/upload/3/1a2b3c4d-a#2.png",
        "/data/local-files/?d=a#2.png",
        "https://host/a#2.png",
    ],
)
def test_a_name_that_was_cut_is_no_other_image_s_stem(weak: Split, address: str) -> None:
    names = image_names((address,))
    assert isinstance(Images(weak).find(names[0], names[1:]), Problem)
