"""What every step shares: its command line, log, clock, manifest, and where things lie in the workspace."""

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
from typing import Any

from data.annotations.strict_json import parse_json
from data.messages import guard_logs, plain
from data.storage import atomic_write
from data.tables import DataError
from tasks.common import disk, processes
from tasks.common.code_identity import code_digest
from tasks.common.config import Params, load_params
from tasks.common.errors import TaskError

log = logging.getLogger(__name__)

WORKSPACE = Path("workspace")
S3_CACHE = Path("runs/s3")
"""In the workspace: what was downloaded, by content. DVC doesn't track it; it may be removed at any time."""
MANIFEST_FORMAT = 1
PASSING = os.EX_TEMPFAIL
"""Exit code 75 of a step that may go well a little later, nothing being mended: a server out of reach."""

Run = Callable[[Params, Path], None]
"""A step: reads its inputs in the workspace folder, writes its outputs there."""


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
        TaskError: the file isn't there or isn't JSON; says which step makes it.
    """
    try:
        content, doubled = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise TaskError(f"{path}: no such file; it is made by `dvc repro {made_by}`") from None
    except (OSError, ValueError) as error:
        raise TaskError(f"{path}: not JSON ({error}); make it anew with `dvc repro -f {made_by}`") from None
    if doubled:
        raise TaskError(
            f"{path}: found key {doubled[0][1]} twice ({doubled[0][0]}); make it anew with `dvc repro -f {made_by}`"
        )
    return content


def write_manifest(folder: Path, stage: str, counts: dict[str, int], **facts: Any) -> None:
    """Writes `folder`/manifest.json: what the step made, in figures that are the same on every run."""
    write_json(
        folder / "manifest.json", {"stage": stage, "format": MANIFEST_FORMAT, "counts": counts, **facts}
    )


def fingerprint(stage: str, files: Iterable[Path], *settings: Any, machine: str) -> str:
    """16 hex digits that name what an interrupted run of a stage must share to be resumed.

    They change with the content of `files` (in this order), with `settings` (JSON-able), with the code that
    decides the stage's result and with torch: half a training by old code and half by new would be recorded as the new
    code's. And with the `machine`: what it is, not its name, which is new in each container. Processes that share the
    step call it together, and all get the first one's, should another have other hardware.
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
    """workspace/runs/STAGE: what differs from run to run (times, resume state). DVC doesn't track it."""
    folder = workspace / "runs" / stage
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def timed(stage: str, run: Run, params: Params, workspace: Path) -> None:
    """Runs a step and notes when, how long and where in workspace/runs/STAGE/run.json."""
    started = datetime.now(UTC)
    clock = time.monotonic()
    run(params, workspace)
    # torch is imported by the steps that need it only: a step that doesn't shouldn't wait seconds for it here.
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
    """CheckpointError, if the step reads checkpoints: importing it imports torch."""
    module = sys.modules.get("models.weights")
    return module.CheckpointError if module is not None else TaskError


def stage_main(stage: str, run: Run, parallel: bool = False) -> None:
    """`python -m tasks.STAGE [--params FILE]`: exit 0, or 1 with a message that says what to do; `PASSING` where that
    is to try again later.

    A `parallel` step may be run by torchrun, and starts `runtime.processes` processes itself where it isn't.
    Unexpected exceptions keep their traceback: they are bugs of ours.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m tasks.{stage}",
        description=(sys.modules[run.__module__].__doc__ or "").strip(),
        epilog=f"Example: python -m tasks.{stage} --params params.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params", default="params.yaml", help="the params file (default: %(default)s)")
    arguments = parser.parse_args()
    level = os.environ.get("POINTS2MODEL_LOG_LEVEL", "INFO").upper()
    level = level if level in logging.getLevelNamesMapping() else "INFO"
    # Of processes that share a step one speaks; the others say what is wrong only.
    level = level if processes.is_first() else "WARNING"
    guard_logs()
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    if "DVC_STAGE" in os.environ:  # else a killed dvc leaves us at work on files that the next one writes
        processes.die_with_parent()
    try:
        params = load_params(arguments.params)
        if parallel:
            processes.start(params.runtime.processes, f"tasks.{stage}", sys.argv[1:], params.threads)
        timed(stage, run, params, WORKSPACE)
        processes.leave()
    except (TaskError, DataError, _checkpoint_error()) as error:
        print(plain(f"{stage}: {error}", lines=True), file=sys.stderr)
        sys.exit(PASSING if getattr(error, "passing", False) else 1)
    except KeyboardInterrupt:
        print(f"{stage}: stopped; run it again to go on", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        told = disk.explain(error, WORKSPACE)
        if told is not None:
            print(plain(f"{stage}: {told}", lines=True), file=sys.stderr)
            sys.exit(1)
        if not isinstance(error, RuntimeError) or not processes.lost_another(error):
            raise
        # Said even where the other one has said why: of a network that doesn't work nobody else tells.
        said = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"{stage}: process {processes.index()} lost the others ({plain(said[:300])})", file=sys.stderr)
        sys.exit(1)
