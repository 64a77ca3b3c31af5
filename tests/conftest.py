"""What all tests share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.s3_server import Proxy, environment, proxy, s3_server


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of large fixtures beside the repository; absent in a plain clone."""
    folder = Path(__file__).resolve().parents[1] / "../shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: no reference fixtures here")
    return folder.resolve()


@dataclass
class Bucket:
    """A bucket of its own on a real S3 server, seen through a proxy that can break answers."""

    name: str
    client: Any  # boto3's, past the proxy
    proxy: Proxy
    endpoint: str  # of the server itself

    def fill(self, objects: dict[str, bytes]) -> None:
        """Stores objects by key."""
        for key, content in objects.items():
            self.client.put_object(Bucket=self.name, Key=key, Body=content)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server, one for all tests."""
    with s3_server(tmp_path_factory.mktemp("s3") / "server.log") as address:
        yield address


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A new bucket; boto3 finds the proxy before its server by the environment."""
    import boto3

    with proxy(s3_endpoint) as before:
        for name, value in environment(before.address).items():
            monkeypatch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.delenv(name, raising=False)
        client = boto3.client("s3", endpoint_url=s3_endpoint)
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=name)
        yield Bucket(name, client, before, s3_endpoint)
