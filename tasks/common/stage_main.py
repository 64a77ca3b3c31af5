"""What every step uses: its command line, log, manifest, and paths in the workspace."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from data.annotations.strict_json import parse_json
from data.errors import DataError
from data.messages import guard_logs, plain
from data.storage import atomic_write
from tasks.common import disk, installed_tool, launcher, processes, startup, tracking
from tasks.common.code_identity import code_digest
from tasks.common.config import Params, load_params
from tasks.common.errors import TaskError

log = logging.getLogger(__name__)

WORKSPACE = Path("workspace")
S3_CACHE = Path("runs/s3")
"""In the workspace: downloaded files, by content. DVC doesn't track them; they may be removed at any time."""
MANIFEST_FORMAT = 1
PASSING = os.EX_TEMPFAIL
"""Exit code 75 of a step that may succeed later without any change: a server can't be reached."""

Run = Callable[[Params, Path], None]
"""A step: reads its inputs in the workspace, writes its outputs there."""


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically: sorted keys, two spaces, a final newline, so that equal content is equal bytes."""
    with atomic_write(path) as temporary:
        Path(temporary).write_text(
            json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def read_json(path: Path, made_by: str) -> Any:
    """Reads JSON that an earlier step wrote.

    Raises:
        TaskError: the file isn't there or isn't JSON; the error names the step that makes it.
    """
    try:
        content, doubled = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise TaskError(f"{path}: no such file; it is made by `dvc repro {made_by}`") from None
    except (OSError, ValueError) as error:
        raise TaskError(f"{path}: not JSON ({error}); make it again with `dvc repro -f {made_by}`") from None
    if doubled:
        raise TaskError(
            f"{path}: found key {doubled[0][1]} twice ({doubled[0][0]}); make it again with `dvc repro -f {made_by}`"
        )
    return content


def write_manifest(folder: Path, stage: str, counts: dict[str, int], **facts: Any) -> None:
    """Writes `folder`/manifest.json: what the step made, without values that differ between equal runs."""
    write_json(
        folder / "manifest.json", {"stage": stage, "format": MANIFEST_FORMAT, "counts": counts, **facts}
    )


def fingerprint(stage: str, files: Iterable[Path], *settings: Any, machine: str) -> str:
    """16 hex digits; an interrupted run of a stage is resumed only if they are unchanged.

    They depend on the content of `files` (in this order), on `settings` (JSON-able), on the version of torch and on the
    code that decides the stage's result: a training half by old and half by new code would be recorded as the new
    code's. They also depend on `machine`: its hardware, not its name, which is new in each container. All processes of
    a step call this together and get the first one's digits, even where another has other hardware.
    """
    torch = sys.modules.get("torch")
    versions = [machine, torch.__version__ if torch is not None else None]
    hashed = hashlib.sha256(json.dumps([settings, versions], sort_keys=True, default=str).encode())
    hashed.update(code_digest(stage).encode())
    for file in files:
        with file.open("rb") as handle:
            hashed.update(hashlib.file_digest(handle, "sha256").digest())
    return processes.gather(hashed.hexdigest()[:16])[0]


def run_folder(workspace: Path, stage: str) -> Path:
    """workspace/runs/STAGE: files that differ between equal runs (times, resume state). DVC doesn't track it."""
    folder = workspace / "runs" / stage
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def timed(stage: str, run: Run, params: Params, workspace: Path) -> None:
    """Runs a step; writes workspace/runs/STAGE/run.json: when it ran, how long and where."""
    started = datetime.now(UTC)
    clock = time.monotonic()
    run(params, workspace)
    # Only where the step has imported torch, which takes seconds.
    torch = sys.modules.get("torch")
    device = None
    if torch is not None:
        from tasks.common.device import resolve_device

        device = str(resolve_device(params.runtime.device))
    if not processes.is_first():
        return
    write_json(
        run_folder(workspace, stage) / "run.json",
        {
            "stage": stage,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 2),
            "device": device,
            "processes": processes.count(),
            "torch": torch.__version__ if torch is not None else None,
            "host": socket.gethostname(),
            "platform": platform.platform(),
        },
    )


def _checkpoint_error() -> type[Exception]:
    module = sys.modules.get("models.weights")  # importing it would import torch
    return module.CheckpointError if module is not None else TaskError


def stage_main(stage: str, run: Run, parallel: bool = False, on_ray: bool = False) -> None:
    """The command line of a step, `python -m tasks.STAGE [--params FILE]`.

    It exits with 0; with 1 and a message that gives the next step; or with `PASSING`. Unexpected exceptions, which are
    bugs of ours, keep their traceback. A `parallel` step that torchrun didn't start starts its processes itself
    (`runtime.processes`, or `runtime.launcher`), unless workers of `runtime.ray` compute its parts (`on_ray`).
    """
    startup.end()
    parser = argparse.ArgumentParser(
        prog=f"python -m tasks.{stage}",
        description=(sys.modules[run.__module__].__doc__ or "").strip(),
        epilog=f"Example: python -m tasks.{stage} --params params.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params", default="params.yaml", help="the params file (default: %(default)s)")
    arguments = parser.parse_args()
    _start_logging()
    if (
        "DVC_STAGE" in os.environ
    ):  # else the step would outlive a killed dvc, and write what the next one writes
        processes.die_with_parent()
    try:
        installed_tool.check(Path())
        params = load_params(arguments.params)
        starts = parallel and not (on_ray and params.runtime.ray)
        if starts and params.runtime.launcher is not None and not processes.started():
            sys.exit(launcher.run(stage, arguments.params, params, run_folder(WORKSPACE, stage)))
        if starts:
            processes.start(params.runtime.processes, f"tasks.{stage}", sys.argv[1:], params.threads)
        with tracking.stage(stage, params, WORKSPACE):
            timed(stage, run, params, WORKSPACE)
            processes.leave()  # before the first one waits for trackers
        if processes.is_first():
            launcher.record(WORKSPACE / "runs" / stage)
    except (TaskError, DataError, _checkpoint_error()) as error:
        _fail(stage, str(error), PASSING if getattr(error, "passing", False) else 1)
    except KeyboardInterrupt:
        print(f"{stage}: stopped; run it again to go on", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        reason = disk.explain(error, WORKSPACE)
        if reason is not None:
            _fail(stage, reason)
        first = plain((str(error).splitlines() or [type(error).__name__])[0][:300])
        if isinstance(error, RuntimeError) and processes.lost_another(error):
            # Printed even where the other process printed its own error: with a broken network this is the only one.
            # Not recorded, since the other one's error is the cause.
            print(f"{stage}: process {processes.index()} lost the others ({first})", file=sys.stderr)
            sys.exit(1)
        launcher.record(WORKSPACE / "runs" / stage, f"{type(error).__name__}: {first}", 1)
        raise


def _fail(stage: str, text: str, code: int = 1) -> NoReturn:
    print(plain(f"{stage}: {text}", lines=True), file=sys.stderr)
    launcher.record(WORKSPACE / "runs" / stage, text, code)
    sys.exit(code)


def _start_logging() -> None:
    """To stderr. Of the processes of a step only the first logs below WARNING."""
    level = os.environ.get("POINTS2MODEL_LOG_LEVEL", "INFO").upper()
    level = level if level in logging.getLevelNamesMapping() else "INFO"
    guard_logs()
    logging.basicConfig(
        level=level if processes.is_first() else "WARNING", format="%(message)s", stream=sys.stderr
    )
