"""Setting up remotes: real folders and a real S3 server; real DVC reads what was written."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.dvc.remote_config import HIDDEN, RemoteError, default_remote, read_remotes
from flows.dvc.remote_setup import set_up
from tests.conftest import Bucket
from tests.flows.conftest import Toy
from tests.s3_server import SECRET

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 60.0


@pytest.fixture
def project(toy: Toy) -> Path:
    """A DVC repository in git whose config has comments; the current folder."""
    shutil.copy(ROOT / ".dvc" / "config", toy.path(".dvc/config"))
    (toy.path(".dvc") / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    subprocess.run(["git", "init", "-q"], cwd=toy.root, check=True)
    return toy.root


def make(project: Path, url: str, **more: Any) -> Any:
    arguments = {"share": True, "replace": False, "seconds": SECONDS, **more}
    options = {"url": url, **arguments.pop("options", {})}
    return set_up(project, arguments.pop("name", "store"), options, **arguments)


def dvc_config(project: Path) -> dict[str, Any]:
    """The configuration as DVC reads it."""
    from dvc.config import Config

    return dict(Config(str(project / ".dvc")))


def test_an_s3_remote_is_tried_and_kept(project: Path, bucket: Bucket) -> None:
    done = make(project, f"s3://{bucket.name}/line/", options={"endpointurl": bucket.endpoint})
    assert done.files == [".dvc/config"] and done.notes == []
    assert dvc_config(project)["core"]["remote"] == "store"
    assert dvc_config(project)["remote"]["store"]["url"] == f"s3://{bucket.name}/line"
    assert (project / ".dvc/config").read_text().startswith((ROOT / ".dvc/config").read_text().rstrip())
    assert "Contents" not in bucket.client.list_objects_v2(Bucket=bucket.name)  # the trial leaves nothing
    assert bucket.proxy.requests == []  # --endpoint-url overrides the environment


def test_an_address_of_the_environment_is_reported(project: Path, bucket: Bucket) -> None:
    done = make(project, f"s3://{bucket.name}/line")
    assert "AWS_ENDPOINT_URL" in done.notes[0]
    methods = [method for method, _, _ in bucket.proxy.requests]
    assert {"PUT", "GET", "POST"} <= set(methods)  # deletes are posted


def test_secrets_and_profiles_stay_out_of_git(project: Path, bucket: Bucket) -> None:
    options = {"access_key_id": "AKIDOFTHETESTS", "secret_access_key": SECRET, "endpointurl": bucket.endpoint}
    done = make(project, f"s3://{bucket.name}/line", options=options)
    assert done.files == [".dvc/config", ".dvc/config.local"]
    shared, local = (project / ".dvc" / name for name in ("config", "config.local"))
    assert SECRET not in shared.read_text() and "AKID" not in shared.read_text()
    assert SECRET in local.read_text()
    assert local.stat().st_mode & 0o077 == 0
    assert dvc_config(project)["remote"]["store"]["secret_access_key"] == SECRET
    assert default_remote(project).shown()["secret_access_key"] == HIDDEN  # type: ignore[union-attr]
    status = subprocess.run(
        ["git", "status", "--short", "-uall"], cwd=project, capture_output=True, text=True, check=True
    )
    assert "config.local" not in status.stdout

    (project / ".dvc/.gitignore").unlink()
    with pytest.raises(RemoteError, match=r"git would commit it.*add a line /config.local"):
        make(project, f"s3://{bucket.name}/line", options=options)


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("s3://no-such-bucket-here/line", {}, "bucket does not exist; create the bucket"),
        ("s3://BUCKET/line", {"profile": "absent"}, r"profile \(absent\) could not be found; correct the profile"),
        pytest.param(
            "s3://BUCKET/line", {"endpointurl": "http://127.0.0.1:CLOSED"}, "Could not connect.*the server is up",
            marks=pytest.mark.slow,  # botocore tries again and again
        ),
        ("s3://BUCKET/line", {"endpointurl": "http://127.0.0.1:SILENT"}, "no response in 3 s"),
        ("s3://BUCKET/line", {"endpointurl": "127.0.0.1:9000"}, "expected http://HOST:PORT"),
        ("s3://BUCKET/line", {"endpointurl": "http://me:secret@127.0.0.1:9000"}, "found credentials in it"),
        ("s3://BUCKET/line", {"bucket": "x"}, "extra keys not allowed"),
        ("s3://me:secret@host/line", {}, "s3://BUCKET/PREFIX; credentials and endpoint are not part of it"),
        ("s3://", {}, "s3://BUCKET/PREFIX"),
        ("ssh://me:secret@host/line", {}, "found a password"),
        ("gs://bucket/line", {}, r"run `pip install dvc-gs`"),
        ("ftp://host/line", {}, "Unsupported URL type ftp"),
        ("workspace/store", {}, "a folder inside the project"),
        ("/proc/nothing/here", {}, "can't be written"),
        ("  ", {}, "empty URL"),
    ],
)  # fmt: skip
def test_an_unusable_remote_isnt_kept(
    project: Path, bucket: Bucket, url: str, options: dict[str, str], message: str
) -> None:
    before = (project / ".dvc/config").read_text()
    seconds = 3.0 if "SILENT" in str(options) else SECONDS
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            ports = {"CLOSED": str(closed.getsockname()[1]), "SILENT": str(silent.getsockname()[1])}
        silent.listen(8)
        for word, port in ports.items():
            options = {key: value.replace(word, port) for key, value in options.items()}
        with pytest.raises(RemoteError, match=message) as caught:
            make(project, url.replace("BUCKET", bucket.name), options=options, seconds=seconds)
    assert "secret" not in str(caught.value).replace("secrets", "")
    assert (project / ".dvc/config").read_text() == before
    assert not (project / ".dvc/config.local").exists()


def test_a_bucket_that_breaks_what_it_stores_isnt_kept(project: Path, bucket: Bucket) -> None:
    bucket.proxy.plan = lambda method, path, nth: "flip" if method == "GET" and "probe" in path else None
    with pytest.raises(RemoteError, match=r"differs from the written one|can't be read"):
        make(project, f"s3://{bucket.name}/line")


@pytest.mark.slow
def test_a_bucket_that_deletes_nothing_is_kept_with_a_note(project: Path, bucket: Bucket) -> None:
    bucket.proxy.plan = lambda method, path, nth: "500" if "?delete" in path else None
    done = make(project, f"s3://{bucket.name}/line", seconds=200.0)
    assert "can't delete" in done.notes[0]


def test_another_url_needs_replace(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("stores")
    make(project, str(folder / "one"))
    assert make(project, str(folder / "one")).files == []
    with pytest.raises(RemoteError, match=r"remote store has the URL .*one \(.dvc/config\); give --replace"):
        make(project, str(folder / "two"))
    make(project, str(folder / "two"), replace=True)
    assert [one.url for one in read_remotes(project)] == [str(folder / "two")]
    make(project, str(folder / "one"), name="Other", share=False)
    assert [(one.name, one.default) for one in read_remotes(project)] == [("other", True), ("store", False)]
    make(project, str(folder / "two"))  # shared again: config.local doesn't set the default any more
    assert default_remote(project).name == "store"  # type: ignore[union-attr]


def test_a_folder_outside_of_the_project_is_found_from_any_folder(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("beside")
    make(project, os.path.relpath(folder, project))
    assert Path(dvc_config(project)["remote"]["store"]["url"]).resolve() == folder.resolve()
    assert list(folder.iterdir()) == []


def command(*arguments: str, **more: Any) -> tuple[int, str]:
    from flows.cli.main import app

    done = CliRunner().invoke(app, ["remote", *arguments], **more)
    return done.exit_code, done.output


def test_the_command_sets_up_and_shows(project: Path, bucket: Bucket) -> None:
    code, said = command()
    assert code == 1 and "points2model remote s3://BUCKET/PREFIX" in said
    address = f"s3://{bucket.name}/line"
    code, said = command(
        address, "--endpoint-url", bucket.endpoint, "--ask-credentials", input=f"AKID\n{SECRET}\n"
    )
    assert code == 0 and "git add .dvc/config" in said and SECRET not in said
    assert SECRET in (project / ".dvc/config.local").read_text()
    code, said = command("--json")
    (shown,) = json.loads(said)["remotes"]
    assert (
        code == 0
        and shown["default"]
        and shown["writable"]
        and shown["options"]["secret_access_key"] == HIDDEN
    )
    bucket.client.delete_bucket(Bucket=bucket.name)
    code, said = command()
    assert code == 1 and "can't be used" in said


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (["s3://a/b", "--option", "ssl_verify"], None, "expected KEY=VALUE"),
        (["s3://a/b", "--name", "my store"], None, "expected letters, digits"),
        (["s3://a/b", "--ask-credentials"], "only one line", "expected two lines on stdin"),
    ],
)
def test_wrong_arguments(project: Path, arguments: list[str], given: str | None, message: str) -> None:
    code, said = command(*arguments, input=given)
    assert code == 1 and message in said


def test_a_folder_that_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in ([], ["s3://a/b"]):
        code, said = command(*arguments)
        assert code == 1 and "cd to the project's folder" in said
