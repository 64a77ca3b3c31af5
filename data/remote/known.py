"""Downloads of objects whose content is known by its SHA-256: no listing, no cache."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from data.errors import DataError
from data.remote.s3 import (
    ATTEMPTS,
    BACKOFF_MAX_S,
    BACKOFF_S,
    CONNECTIONS,
    ObjectError,
    as_error,
    make_client,
    raise_if_final,
    transient_errors,
)
from data.storage import join, split_s3


@cache
def _client() -> Any:
    return make_client()  # takes a tenth of a second


def fetch_known(source: str, digests: Mapping[str, str], folder: Path) -> list[str]:
    """Downloads objects below s3://BUCKET/PREFIX into a folder, each verified by its SHA-256 (hex).

    Args:
        digests: by name, the part of the key below the source.

    Returns:
        The names that aren't there, or have another content.

    Raises:
        S3Error: the server can't be used.
    """
    bucket, prefix = split_s3(source)

    def fetch(name: str) -> bool:
        try:
            path = join(folder, name)
        except DataError:
            return False
        content = _content(bucket, f"{prefix}/{name}" if prefix else name, digests[name])
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return content is not None

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        found = zip(digests, pool.map(fetch, digests), strict=True)
        return [name for name, is_there in found if not is_there]


def _content(bucket: str, key: str, digest: str) -> bytes | None:
    """The content of an object; None if it is gone, or twice another one."""
    where = f"s3://{bucket}/{key}"
    failures = wrong = 0
    while wrong < 2:
        try:
            content: bytes = _client().get_object(Bucket=bucket, Key=key)["Body"].read()
        except transient_errors() as error:
            try:
                raise_if_final(error, where)
            except ObjectError:
                return None
            failures += 1
            if failures >= ATTEMPTS:
                raise as_error(error, where) from None
            time.sleep(random.uniform(0.5, 1) * min(BACKOFF_MAX_S, BACKOFF_S * 2 ** (failures - 1)))
        else:
            if hashlib.sha256(content).hexdigest() == digest:
                return content
            wrong += 1
    return None
