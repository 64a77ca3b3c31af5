"""Objects in S3: listing, and downloads that are resumed and verified.

Any S3 server: boto3 itself finds endpoint, region and credentials (AWS_ENDPOINT_URL, AWS_PROFILE, ~/.aws, instance
roles). They are not logged.
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import threading
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from data.errors import DataError, Fault

CONNECTIONS = 16
ATTEMPTS = 8
"""Attempts of one object in a row without a new byte; botocore retries each request in addition."""
BACKOFF_S, BACKOFF_MAX_S = 0.25, 20.0
_CHUNK = 1 << 20
_TRANSIENT = {"429", "500", "502", "503", "504", "InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown",
              "Throttling", "ThrottlingException", "RequestLimitExceeded"}  # fmt: skip
_GONE = {"404", "NoSuchKey", "412", "PreconditionFailed"}


class S3Object(NamedTuple):
    """An object in a listing."""

    key: str
    size: int  # bytes
    etag: str  # MD5 (hex) of an object that was uploaded in one part and without KMS
    age: float = 0.0  # seconds since it was written, by the server's clock

    @property
    def identity(self) -> str:
        """32 hex digits, a hash of ETag and size: the same for the same content."""
        return hashlib.sha256(f"{self.etag}\n{self.size}".encode()).hexdigest()[:32]


class ObjectError(Exception):
    """A single object can't be downloaded: it is gone, has changed, or is never complete. `args` is found, expected."""


class S3Error(DataError):
    """The server can't be used: wrong address, no credentials, no network."""


class S3Away(S3Error):
    """The server doesn't respond or is overloaded; a later retry may succeed."""

    passing = True


def make_client() -> Any:
    """A boto3 client, configured by boto3's own rules and safe for many threads.

    Raises:
        S3Error: an invalid configuration (a profile, a region).
    """
    import boto3
    import botocore.config
    import botocore.exceptions

    for name in ("boto3", "botocore", "urllib3", "s3transfer"):
        logging.getLogger(name).setLevel(logging.WARNING)  # at DEBUG they write signed requests
    retries: dict[str, Any] = {"mode": "standard"}
    try:
        session = boto3.Session()
        if session._session.get_config_variable("max_attempts") is None:
            retries["total_max_attempts"] = 5
        config = botocore.config.Config(
            retries=retries,
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=CONNECTIONS,
            response_checksum_validation="when_required",  # whole files are verified instead
        )
        return session.client("s3", config=config)
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise as_error(error, "S3") from None


def list_objects(client: Any, bucket: str, prefix: str) -> Iterator[S3Object]:
    """All objects whose key begins with `prefix`, by key; placeholders of folders (keys with a final /) are left out.

    Raises:
        S3Error: a missing bucket, no credentials, no network or similar.
    """
    import botocore.exceptions

    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            now = _server_time(page)
            for row in page.get("Contents", []):
                if not row["Key"].endswith("/"):
                    written: datetime = row["LastModified"]
                    # Without an ETag, the time of writing identifies the content.
                    etag = row.get("ETag", "").strip('"') or f"{row['Key']} {written.isoformat()}"
                    yield S3Object(row["Key"], int(row["Size"]), etag, now - written.timestamp())
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise as_error(error, f"s3://{bucket}/{prefix}") from None


def _server_time(page: dict[str, Any]) -> float:
    """The server's clock in seconds since 1970, since ours may be minutes off; ours if the response has no date."""
    date = page.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return parsedate_to_datetime(date).timestamp() if date else time.time()
    except ValueError:
        return time.time()


def download(client: Any, bucket: str, one: S3Object, path: Path, stopped: threading.Event) -> str:
    """Download an object to `path` and verify it; returns its SHA-256 (hex).

    Bytes that an earlier attempt, or a killed process, left at `path` are kept, and only the rest is requested. Size
    and content are verified: by the ETag (MD5, or MD5 of the parts' MD5s) or the checksum of the server; if there is
    none, by a second download, which must be equal. The download stops soon after `stopped` is set.

    Raises:
        ObjectError: this object can't be downloaded.
        S3Error: the server didn't respond, `ATTEMPTS` times in a row.
        OSError: the file can't be written, for example on a full disk.
    """
    where = f"s3://{bucket}/{one.key}"
    failures = 0
    unproven: set[str] = set()
    with path.open("ab") as file:
        while True:
            before = file.tell()
            try:
                if before < one.size:
                    _append(client, bucket, one, file, stopped)
                right = file.tell() == one.size and _is_right(client, bucket, one, path)
                digest = file_digest(path, "sha256")
                if right or (right is None and digest in unproven):
                    return digest
            except transient_errors() as error:
                raise_if_final(error, where)
                failures = 1 if file.tell() > before else failures + 1
                if failures >= ATTEMPTS:
                    raise as_error(error, where) from None
            else:
                _empty(file)
                failures += right is not None  # the first of two downloads isn't a failure
                unproven |= {digest} if right is None else set()
                if failures >= ATTEMPTS:
                    raise ObjectError(
                        f"content that doesn't match its ETag {one.etag}, {ATTEMPTS} times in a row",
                        f"the {one.size} bytes that were stored",
                    )
            pause = random.uniform(0.5, 1) * min(BACKOFF_MAX_S, BACKOFF_S * 2 ** (failures - 1))
            if stopped.wait(pause if failures else 0):
                raise S3Error(Fault(where, "S3", "a download that was stopped", "all objects", "run again"))


def _append(client: Any, bucket: str, one: S3Object, file: BinaryIO, stopped: threading.Event) -> None:
    """Request the missing bytes and write them as they arrive; those before a broken connection are kept."""
    start = file.tell()
    rest = {"Range": f"bytes={start}-"} if start else {}
    same = {"IfMatch": f'"{one.etag}"'} if " " not in one.etag else {}
    response = client.get_object(Bucket=bucket, Key=one.key, **rest, **same)
    body = response["Body"]
    if start and not str(response.get("ContentRange", "")).startswith(f"bytes {start}-"):
        _empty(file)  # a server without ranges sends the whole object
    try:
        while not stopped.is_set() and (chunk := body.read(_CHUNK)):
            file.write(chunk)
    finally:
        body.close()
        file.flush()


def _empty(file: BinaryIO) -> None:
    file.flush()
    file.truncate(0)
    file.seek(0)


def _is_right(client: Any, bucket: str, one: S3Object, path: Path) -> bool | None:
    """Whether a downloaded file is the server's object; None if that can't be verified."""
    kind = re.fullmatch(r"([0-9a-f]{32})(?:-(\d+))?", one.etag)
    if kind is not None and kind[2] is None and file_digest(path, "md5") == one.etag:
        return True
    head = _head(client, bucket, one, ChecksumMode="ENABLED")
    for name, digest in _CHECKSUMS.items():
        value = head.get(f"Checksum{name}")
        if value is not None and "-" not in value and head.get("ChecksumType") != "COMPOSITE":
            return bool(value == digest(path))
    encrypted = head.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in head
    if kind is None or encrypted:
        return None
    if kind[2] is None:
        return False
    part = int(_head(client, bucket, one, PartNumber=1).get("ContentLength", 0))
    # Parts may differ in size, so only a match is proof.
    return True if _parts_etag(path, part) == one.etag else None


def _head(client: Any, bucket: str, one: S3Object, **more: Any) -> dict[str, Any]:
    """The server's metadata of an object; empty if it doesn't support the request."""
    import botocore.exceptions

    try:
        response: dict[str, Any] = client.head_object(Bucket=bucket, Key=one.key, **more)
    except botocore.exceptions.ClientError as error:
        if str(error.response.get("Error", {}).get("Code", "")) in _TRANSIENT | _GONE:
            raise
        return {}
    return response


def _parts_etag(path: Path, part: int) -> str:
    """The ETag of an object uploaded in parts of `part` bytes: the MD5 of their MD5s, and their number."""
    digests = []
    with path.open("rb") as file:
        while chunk := file.read(max(part, 1)):
            digests.append(hashlib.md5(chunk, usedforsecurity=False).digest())
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def file_digest(path: Path, name: str) -> str:
    """Hex digest of a file by the hash of that name in hashlib."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


def _in_base64(name: str) -> Callable[[Path], str]:
    return lambda path: b64encode(bytes.fromhex(file_digest(path, name))).decode()


def _crc32(path: Path) -> str:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return b64encode(value.to_bytes(4, "big")).decode()


# CRC32C and CRC64NVME need another library; objects with one have an ETag too.
_CHECKSUMS: dict[str, Callable[[Path], str]] = {
    "SHA256": _in_base64("sha256"), "SHA1": _in_base64("sha1"), "CRC32": _crc32,
}  # fmt: skip


def transient_errors() -> tuple[type[Exception], ...]:
    import botocore.exceptions
    import urllib3.exceptions

    network = urllib3.exceptions.HTTPError
    return botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, network, ConnectionError


def raise_if_final(error: Exception, where: str) -> None:
    """Raise if another attempt can't help."""
    import botocore.exceptions

    if isinstance(error, botocore.exceptions.ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _GONE:
            found = "an object that was replaced or removed meanwhile"
            raise ObjectError(found, "an object that stays as listed") from None
        if code not in _TRANSIENT:
            raise as_error(error, where) from None
    final = (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError,
             botocore.exceptions.ParamValidationError)  # fmt: skip
    if isinstance(error, final):
        raise as_error(error, where) from None


def as_error(error: Exception, where: str) -> S3Error:
    """An error of boto3 as an `S3Error`; an `S3Away` if it is transient."""
    import botocore.exceptions
    import urllib3.exceptions

    if isinstance(error, botocore.exceptions.ClientError):
        passing = str(error.response.get("Error", {}).get("Code", "")) in _TRANSIENT
    else:
        refused = (botocore.exceptions.SSLError, botocore.exceptions.InvalidProxiesConfigError)
        network = (
            botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError, urllib3.exceptions.HTTPError,
            ConnectionError,
        )  # fmt: skip
        passing = isinstance(error, network) and not isinstance(error, refused)
    return (S3Away if passing else S3Error)(explain(error, where))


def explain(error: Exception, where: str) -> Fault:
    """An error of boto3 as a fault, on one line; `Fault` hides credentials in URLs."""
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    steps = {
        "NoSuchBucket": "correct the bucket's name, or AWS_ENDPOINT_URL",
        "NoCredentialsError": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`",
        "ProfileNotFound": "correct AWS_PROFILE",
        **dict.fromkeys(
            (
                "AccessDenied",
                "403",
                "Forbidden",
                "InvalidAccessKeyId",
                "SignatureDoesNotMatch",
                "ExpiredToken",
            ),
            "check the credentials (AWS_PROFILE), and that they may list and read there",
        ),
        **dict.fromkeys(
            ("EndpointConnectionError", "ConnectTimeoutError", "ConnectionClosedError", "ReadTimeoutError"),
            "check the network and AWS_ENDPOINT_URL, then run again: finished downloads are kept",
        ),
    }
    step = steps.get(code) or steps.get(type(error).__name__, "run again: finished downloads are kept")
    return Fault(where, "S3", str(error), "an S3 server that responds", step)
