"""Names of images in the addresses that Label Studio writes. They are looked up in the data set, never opened."""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from urllib.parse import parse_qs, unquote, urlsplit

_UPLOAD = re.compile(r"(?:data/upload/(?:\d+/)?)?([^/]+)")
_PREFIXED = re.compile(r"^[0-9a-f]{8}-(.+)$")


@lru_cache(maxsize=1024)
def image_names(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The names that an image may have in the data set, the likeliest first.

    - `/data/local-files/?d=folder/a.jpg`: `folder/a.jpg`
    - `/data/upload/18/1a2b3c4d-a.jpg`: the path, then `1a2b3c4d-a.jpg`, then `a.jpg` (the upload's prefix)
    - `s3://bucket/folder/a.jpg`, `https://host/folder/a.jpg?token`: `folder/a.jpg`
    - `/tasks/7/presign/?fileuri=BASE64`: as the address that it holds
    """
    names: dict[str, None] = {}
    for address in addresses:
        for name in _names(address):
            names.setdefault(name)
    return tuple(names)


def _names(address: str) -> list[str]:
    try:
        parts = urlsplit(address)
        query = parse_qs(parts.query)
    except ValueError:  # brackets that are no IPv6 address
        return [address]
    if query.get("d"):
        return [query["d"][0].lstrip("/")]
    if query.get("fileuri"):
        inner = _decoded(query["fileuri"][0])
        if inner is not None:
            return [name for name in _names(inner) if name]
    path = parts.path.lstrip("/")
    found = [path, unquote(path)] if "://" in address else [address.lstrip("/"), path, unquote(path)]
    upload = _UPLOAD.fullmatch(unquote(path))
    if upload:
        # The folder is the server's, and so is the prefix that it gives to a name. Other folders are the data set's.
        found += [upload[1], _PREFIXED.sub(r"\1", upload[1])]
    return [name for name in found if name]


def _decoded(value: str) -> str | None:
    try:
        inner = base64.b64decode(value, validate=True).decode("utf-8")
    except ValueError:
        return None
    # One level is what Label Studio writes: an address in an address in an address is somebody's joke.
    return None if "fileuri=" in inner else inner
