"""Names that an image at an address may have in a data set: Label Studio and other tools write addresses."""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from urllib.parse import unquote, unquote_plus, urlsplit

from data.storage import IMAGE_SUFFIXES

_UPLOAD = re.compile(r"(?:data/upload/(?:\d+/)?)?([^/]+)")
_D = re.compile(r"[?&]d=(.+)", re.DOTALL)
_KEY = re.compile(r"[^:/?#]+://[^/]*/+(.*)|/*((?!.*://).*)", re.DOTALL)
_PREFIXED = re.compile(r"^[0-9a-f]{8}-(.+)$")


@lru_cache(maxsize=1024)
def image_names(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The names that an image may have in the data set, the most likely first.

    - `/data/local-files/?d=folder/a.jpg`: `folder/a.jpg`
    - `/data/upload/18/1a2b3c4d-a.jpg`: the path, then `1a2b3c4d-a.jpg`, then `a.jpg` (the upload's prefix)
    - `https://host/folder/a.jpg?token`: `folder/a.jpg`
    - `s3://bucket/folder/a#2.jpg?b`: the key, in which `#` and `?` are ordinary characters; then the part before them,
      if it has an image's suffix: a cut name must not be looked up as a stem
    - `/tasks/7/presign/?fileuri=BASE64`: as the address inside
    """
    names: dict[str, None] = {}
    for address in addresses:
        for name in _names(address):
            names.setdefault(name)
    return tuple(names)


def _names(address: str) -> list[str]:
    try:
        parts = urlsplit(address)
    except ValueError:  # brackets without an IPv6 address
        return [address]
    query = dict(part.partition("=")[::2] for part in reversed(parts.query.split("&")))
    if query.get("d"):
        return _of_local_file(_D.findall(address)[0], query["d"])
    if query.get("fileuri"):
        inner = _decoded(unquote(query["fileuri"]))
        if inner is not None:
            return [name for name in _names(inner) if name]
    path = parts.path.lstrip("/")
    if parts.scheme.lower() in ("http", "https") and not parts.fragment:
        paths = [path]
    else:
        key = _KEY.fullmatch(address)
        keys = [key[1] or key[2]] if key else []
        paths = [*keys, *([path] if path in keys else _whole_names([path]))]
    found = [name for path in paths for name in (path, unquote(path))]
    for path in paths:
        upload = _UPLOAD.fullmatch(unquote(path))
        if upload:
            # Folder and prefix of an upload are the server's. Other prefixes are part of the name in the data set.
            found += [upload[1], _PREFIXED.sub(r"\1", upload[1])]
    return [name for name in found if name]


def _of_local_file(whole: str, cut: str) -> list[str]:
    """Names in Label Studio's `?d=`, in which the server reads + as a space; users write them unquoted."""
    names = [unquote_plus(cut), unquote(cut)]
    if cut != whole:
        names = [unquote_plus(whole), unquote(whole), *_whole_names(names)]
    return [name for name in (n.lstrip("/") for n in names) if name]


def _whole_names(names: list[str]) -> list[str]:
    """The names, cut at a `#`, `?` or `&`, that look complete."""
    return [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]


def _decoded(value: str) -> str | None:
    try:
        # Label Studio uses the URL alphabet of base64.
        inner = base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True).decode("utf-8")
    except ValueError:
        return None
    # Label Studio writes one level; deeper ones are not followed.
    return None if "fileuri=" in inner else inner
