"""Files that can't be sent are reported with the reasons."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import pytest
from dvc_data.hashfile.transfer import TransferResult

from flows.dvc.remote_config import RemoteError
from flows.dvc.remote_setup import set_up
from flows.dvc.send import send_all
from tests.flows.whole import Whole


def test_failed_files_are_reported_with_each_reason_once(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(source: Any, target: Any, objects: Any, **options: Any) -> TransferResult:
        for _ in objects:
            error = OSError(errno.ENOSPC, "No space left on device")
            logging.getLogger("dvc_data.hashfile.transfer").error("failed to transfer", exc_info=error)
        return TransferResult(set(), set(objects))

    set_up(whole.root, "store", {"url": str(tmp_path / "s")}, share=True, replace=False, seconds=60)
    monkeypatch.setattr("flows.dvc.remote.transfer", fail)
    with pytest.raises(RemoteError) as error:
        send_all(whole.root, print, pauses=())
    assert "files weren't sent: No space left on device; free space there. Nothing is lost" in str(
        error.value
    )
    assert caplog.records == []
