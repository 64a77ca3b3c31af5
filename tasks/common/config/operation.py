"""Sections `runtime` and `operate`, which don't affect results: no stage depends on them."""

from __future__ import annotations

import difflib
import re
import shlex
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tasks.common.config.section import (
    FileName,
    Name,
    NonNegative,
    NonNegativeInt,
    Parallel,
    Positive,
    PositiveInt,
    Section,
    Source,
)

CRON_NAMES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")


def _checked_ray(value: str) -> str:
    if value != "auto" and not re.fullmatch(r"[A-Za-z0-9._-]+:\d{1,5}|\[[0-9A-Fa-f:]+\]:\d{1,5}", value):
        raise ValueError(
            f"found {value!r}; expected HOST:PORT of a Ray cluster's head, auto (the cluster that this machine is a "
            "node of), or null"
        )
    return value


LAUNCHER_VALUE = re.compile(
    r"\$\$|\$(?P<brace>\{)?(?P<variable>[A-Za-z_]\w*)(?(brace)\})|\{(?P<placeholder>\w+)\}"
)
"""What is replaced in words of `runtime.launcher`: $$, $NAME or ${NAME}, {placeholder}."""
LAUNCHER_PLACEHOLDERS = ("module", "params", "processes", "python")


def _checked_launcher(value: str) -> str:
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"found {value[:100]!r} ({str(error).lower()}); expected a command line") from None
    if not words or not words[0]:
        raise ValueError("found no program; expected a command line, or null")
    names = [found["placeholder"] for word in words for found in LAUNCHER_VALUE.finditer(word)]
    for name in filter(None, names):
        if name not in LAUNCHER_PLACEHOLDERS:
            known = ", ".join(f"{{{one}}}" for one in LAUNCHER_PLACEHOLDERS)
            raise ValueError(f"found an unknown placeholder {{{name}}}; expected one of {known}")
    if missing := [name for name in ("module", "params") if name not in names]:
        raise ValueError(
            f"found a command without {{{missing[0]}}}; expected one that runs `-m {{module}} --params {{params}}`"
        )
    return value


class TrackerConfig(Section):
    """Where a run's params, curves and metrics are shown, besides the report (docs/trackers.md); or its name alone.

    `to`: MLflow's address, null: MLFLOW_TRACKING_URI; of the others a folder, null: one in workspace/runs/tracking.
    `project`: the experiment of MLflow, the project of W&B; null: the name of the project's folder.
    `registered_model`: the name under which MLflow's registry gets each promoted model; null: it gets none."""

    name: Literal["mlflow", "tensorboard", "wandb", "dvc"]
    to: FileName | None = None
    project: FileName | None = None
    registered_model: FileName | None = None

    @model_validator(mode="after")
    def _fits_the_tracker(self) -> TrackerConfig:
        if self.name != "mlflow" and self.registered_model is not None:
            raise ValueError(
                f"registered_model: found one of {self.name}; expected null, only mlflow has a registry"
            )
        if self.name in ("tensorboard", "dvc") and self.project is not None:
            raise ValueError(
                f"project: found one of {self.name}; expected null, only mlflow and wandb have projects"
            )
        if self.to is None:
            return self
        # The value isn't repeated: it may hold a password.
        if re.search(r"//[^/]*@|[?&]\w+=", self.to):
            variables = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            raise ValueError(
                f"to: found an address with a login or token, in a file that git keeps; expected these in {variables}"
            )
        folder = PurePosixPath(self.to).parts
        of_a_stage = folder[:1] == ("workspace",) and folder[1:2] != ("runs",)
        if self.name != "mlflow" and ("://" in self.to or of_a_stage):
            found = (
                "an address"
                if "://" in self.to
                else "a folder in workspace/, where DVC replaces what stages write"
            )
            raise ValueError(f"to: found {found}; expected a folder elsewhere, or in workspace/runs")
        return self


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class RuntimeConfig(Section):
    """The machine: device (`auto`, `cpu`, `cuda`, `cuda:1`), processes of a heavy step on each machine, the command
    that starts them (null: the step itself, on this machine), loader processes of each, whether decoded images are
    kept in memory, how many states of a training are kept.

    `ray`: the Ray cluster whose workers compute the parts of pseudo_label and evaluate (docs/clusters.md); null: this
    machine does.
    `trackers`: MLflow, TensorBoard, W&B, DVC's plots; none by default.

    Another device or number of processes changes rounding, which is no reason to train again."""

    device: Name
    processes: Parallel
    launcher: Annotated[Name, AfterValidator(_checked_launcher)] | None
    ray: Annotated[Name, AfterValidator(_checked_ray)] | None
    workers: Annotated[NonNegativeInt, Field(le=1024)]
    cache_images: bool
    keep_checkpoints: PositiveInt
    trackers: Annotated[
        tuple[Annotated[TrackerConfig, BeforeValidator(_named)], ...], Field(max_length=10)
    ] = ()

    @model_validator(mode="after")
    def _a_device_each(self) -> RuntimeConfig:
        if self.processes > 1 and ":" in self.device:
            expected = "cuda, so that each process has a GPU; choose them with CUDA_VISIBLE_DEVICES"
            raise ValueError(
                f"device: found {self.device!r} with processes: {self.processes}; expected {expected}"
            )
        if self.ray is not None and self.device not in ("auto", "cpu"):
            raise ValueError(
                f"device: found {self.device!r} with ray; expected auto or cpu: Ray selects each worker's GPU"
            )
        return self


def _checked_schedule(value: str) -> str:
    # Prefect's own check, for which all of Prefect would be imported.
    from cronsim import CronSim, CronSimError

    if value not in CRON_NAMES:
        try:
            CronSim(value, datetime(2000, 1, 1))
        except CronSimError:
            expected = (
                'a cron line: minute, hour, day of month, month, day of week, e.g. "0 2 * * *" for 2 o\'clock'
            )
            raise ValueError(f"found {value!r}; expected {expected}, or null") from None
    return value


def _checked_timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (LookupError, ValueError, OSError):
        if known := available_timezones():  # none if the machine has no list of them
            near = difflib.get_close_matches(value, known, n=2, cutoff=0.5)
            raise ValueError(
                f"found {value!r}; expected a time zone such as {' or '.join(near or ['UTC'])}"
            ) from None
    return value


NOTIFY_BLOCK = re.compile(r"[a-z0-9-]+/[A-Za-z0-9_-]+")


def checked_notify(value: str) -> str:
    """The error doesn't repeat the value: a webhook's URL is a secret."""
    expected = "expected https://HOST/..., http://HOST/..., or a Prefect notification block as type/name"
    if NOTIFY_BLOCK.fullmatch(value):
        return value
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError(f"found no address; {expected}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"found {f'scheme {parts.scheme}' if parts.scheme else 'no scheme'}; {expected}")
    if not parts.hostname or not value.isprintable() or " " in value:
        raise ValueError(f"found no host, or characters that an address can't have; {expected}")
    return value


class InboxConfig(Section):
    """Where new point files arrive: `source`, a folder or s3://BUCKET/PREFIX; null: nowhere.

    It is checked every `poll_seconds`; a file counts once it hasn't changed for `stable_seconds`. A run starts when
    there are `min_points` new points, or the oldest file is pending for `max_wait_seconds`."""

    source: Source | None
    poll_seconds: Positive
    stable_seconds: NonNegative
    min_points: PositiveInt
    max_wait_seconds: NonNegative


class OperateConfig(Section):
    """How the pipeline is operated.

    `schedule`: cron line of `points2model serve`, in `timezone`.
    `promote`: whether a run promotes a student that is good enough.
    `git`: promotions are committed and tagged.
    `push`: a run that ends sends data, models and the run-cache to DVC's default remote.
    `notify`: where failures and promotions are reported: a webhook's URL, or a Prefect block as type/name."""

    schedule: Annotated[Name, AfterValidator(_checked_schedule)] | None
    timezone: Annotated[Name, AfterValidator(_checked_timezone)]
    inbox: InboxConfig
    promote: Literal["automatic", "manual"]
    git: bool
    push: bool
    notify: Annotated[Name, AfterValidator(checked_notify)] | None
