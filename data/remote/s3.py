"""Objects in S3: listed, and downloaded so that what breaks off goes on and what comes is what was sent.

Any server that speaks S3: endpoint, region and credentials are found by boto3's own chain (AWS_ENDPOINT_URL,
AWS_PROFILE, ~/.aws, instance roles), never by us, and are not logged.
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import threading
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from data.errors import DataError, Fault

CONNECTIONS = 16
ATTEMPTS = 8
"""Of one object in a row without a further byte; botocore's own attempts of each request come on top."""
BACKOFF_S, BACKOFF_MAX_S = 0.25, 20.0
_CHUNK = 1 << 20
_TRANSIENT = {"429", "500", "502", "503", "504", "InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown",
              "Throttling", "ThrottlingException", "RequestLimitExceeded"}  # fmt: skip
_GONE = {"404", "NoSuchKey", "412", "PreconditionFailed"}


class S3Object(NamedTuple):
    """An object as a listing tells it. `etag` is its MD5 (hex) where it was sent in one part and without KMS."""

    key: str
    size: int  # bytes
    etag: str

    @property
    def identity(self) -> str:
        """32 hex digits that are the same for the same content, as far as the listing tells."""
        return hashlib.sha256(f"{self.etag}\n{self.size}".encode()).hexdigest()[:32]


class ObjectError(Exception):
    """One object can't be had, others may: it is gone, has changed, or never comes whole. `args` is found, expected."""


class S3Error(DataError):
    """The server can't be used at all: wrong address, no credentials, no network."""


class S3Away(S3Error):
    """The server doesn't answer, or says "later": another try may go well."""

    passing = True


def make_client() -> Any:
    """A boto3 client by boto3's own chain, safe for many threads.

    Raises:
        S3Error: the configuration (a profile, a region) is wrong.
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
            response_checksum_validation="when_required",  # what comes is verified as a file, whole
        )
        return session.client("s3", config=config)
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise as_error(error, "S3") from None


def list_objects(client: Any, bucket: str, prefix: str) -> Iterator[S3Object]:
    """All objects whose key begins with `prefix`, in the order of their keys; "folders" of size 0 are left out.

    Raises:
        S3Error: no such bucket, no credentials, no network, and the like.
    """
    import botocore.exceptions

    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for row in page.get("Contents", []):
                if not row["Key"].endswith("/"):
                    # A server without ETags: the time of writing stands for the content.
                    etag = row.get("ETag", "").strip('"') or f"{row['Key']} {row['LastModified'].isoformat()}"
                    yield S3Object(row["Key"], int(row["Size"]), etag)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise as_error(error, f"s3://{bucket}/{prefix}") from None


def download(client: Any, bucket: str, one: S3Object, path: Path, stopped: threading.Event) -> str:
    """Brings an object to `path` whole, and verified; returns its SHA-256 (hex).

    What an earlier attempt, or a killed process, left at `path` is kept and the rest asked for. Verified are size and
    content: by the ETag (MD5, or MD5 of parts' MD5s) or the checksum that the server has; where it has neither, by a
    second download, which must be the same. `stopped`, once set, ends it soon.

    Raises:
        ObjectError: this object can't be had.
        S3Error: the server didn't answer, `ATTEMPTS` times in a row.
        OSError: the disk is full, say.
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
            except _transient_errors() as error:
                _raise_if_final(error, where)
                failures = 1 if file.tell() > before else failures + 1
                if failures >= ATTEMPTS:
                    raise as_error(error, where) from None
            else:
                _empty(file)
                failures += right is not None  # the first of two downloads is no failure
                unproven |= {digest} if right is None else set()
                if failures >= ATTEMPTS:
                    raise ObjectError(
                        f"content that isn't what its ETag {one.etag} says, {ATTEMPTS} times over",
                        f"the {one.size} bytes that were stored",
                    )
            pause = random.uniform(0.5, 1) * min(BACKOFF_MAX_S, BACKOFF_S * 2 ** (failures - 1))
            if stopped.wait(pause if failures else 0):
                raise S3Error(Fault(where, "S3", "a download that was stopped", "all objects", "run again"))


def _append(client: Any, bucket: str, one: S3Object, file: BinaryIO, stopped: threading.Event) -> None:
    """Asks for what is missing and writes it as it comes: what a broken connection leaves is kept."""
    start = file.tell()
    some = {"Range": f"bytes={start}-"} if start else {}
    same = {"IfMatch": f'"{one.etag}"'} if " " not in one.etag else {}
    response = client.get_object(Bucket=bucket, Key=one.key, **some, **same)
    body = response["Body"]
    if start and not str(response.get("ContentRange", "")).startswith(f"bytes {start}-"):
        _empty(file)  # a server that knows no ranges sends all of it
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
    """Whether a downloaded file is what the server has; None where nothing tells."""
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
    # Parts needn't be of one size: only where it fits is it proof.
    return True if _parts_etag(path, part) == one.etag else None


def _head(client: Any, bucket: str, one: S3Object, **more: Any) -> dict[str, Any]:
    """What the server tells of an object; nothing where it doesn't know such a question."""
    import botocore.exceptions

    try:
        answer: dict[str, Any] = client.head_object(Bucket=bucket, Key=one.key, **more)
    except botocore.exceptions.ClientError as error:
        if str(error.response.get("Error", {}).get("Code", "")) in _TRANSIENT | _GONE:
            raise
        return {}
    return answer


def _parts_etag(path: Path, part: int) -> str:
    """The ETag of an object sent in parts of `part` bytes: the MD5 of their MD5s, and their number."""
    digests = []
    with path.open("rb") as file:
        while chunk := file.read(max(part, 1)):
            digests.append(hashlib.md5(chunk, usedforsecurity=False).digest())
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def file_digest(path: Path, name: str) -> str:
    """Hex digest of a file's bytes by a hash that hashlib knows by that name."""
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


# CRC32C and CRC64NVME would need a library of their own; an object that has one has an ETag too.
_CHECKSUMS: dict[str, Callable[[Path], str]] = {
    "SHA256": _in_base64("sha256"), "SHA1": _in_base64("sha1"), "CRC32": _crc32,
}  # fmt: skip


def _transient_errors() -> tuple[type[Exception], ...]:
    import botocore.exceptions
    import urllib3.exceptions

    network = urllib3.exceptions.HTTPError
    return botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, network, ConnectionError


def _raise_if_final(error: Exception, where: str) -> None:
    """Raises where another attempt is of no use."""
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
    """An error of boto3 as ours: an `S3Away` where it is one of those that pass."""
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
    """An error of boto3 as a fault, in a line; `Fault` hides what a URL may carry."""
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
            "check the network and AWS_ENDPOINT_URL, then run again: what has come is kept",
        ),
    }
    step = steps.get(code) or steps.get(type(error).__name__, "run again: what has come is kept")
    return Fault(where, "S3", str(error), "an S3 server that answers", step)
