"""Sections `runtime` and `operate`, which decide no result: no stage depends on them."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, model_validator

from tasks.common.config.section import (
    Name,
    NonNegative,
    NonNegativeInt,
    Parallel,
    Positive,
    PositiveInt,
    Section,
    Source,
)


class RuntimeConfig(Section):
    """What no step depends on: the device (`auto`, `cpu`, `cuda`, `cuda:1`), how many processes share a heavy step,
    loader processes of each, decoded images kept in memory, how many states of a training that runs are kept. Another
    device, or number of processes, rounds otherwise; that isn't a reason to train anew."""

    device: Name
    processes: Parallel
    workers: Annotated[NonNegativeInt, Field(le=1024)]
    cache_images: bool
    keep_checkpoints: PositiveInt

    @model_validator(mode="after")
    def _a_device_each(self) -> RuntimeConfig:
        if self.processes > 1 and ":" in self.device:
            raise ValueError(
                f"device: {self.device!r} is one device, and processes: {self.processes} need one each; say cuda, and "
                "choose GPUs with CUDA_VISIBLE_DEVICES"
            )
        return self


def _checked_timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (LookupError, ValueError, OSError):
        if known := available_timezones():  # else this machine has no list of them
            near = difflib.get_close_matches(value, known, n=2, cutoff=0.5)
            raise ValueError(
                f"found {value!r}; expected a time zone such as {' or '.join(near or ['UTC'])}"
            ) from None
    return value


NOTIFY_BLOCK = re.compile(r"[a-z0-9-]+/[A-Za-z0-9_-]+")


def checked_notify(value: str) -> str:
    """The text doesn't repeat the value: whoever has a webhook's URL may write there."""
    expected = "expected https://HOST/..., http://HOST/..., or a notification block of Prefect's as type/name"
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
        raise ValueError(f"found no host, or characters that no address has; {expected}")
    return value


class InboxConfig(Section):
    """Where new point files arrive: `source`, a folder or s3://bucket/prefix, null: nowhere. It is looked at every
    `poll_seconds`; a file counts once it hasn't changed for `stable_seconds`. A run starts when at least `min_points`
    new points wait, or the oldest has waited `max_wait_seconds`."""

    source: Source | None
    poll_seconds: Positive
    stable_seconds: NonNegative
    min_points: PositiveInt
    max_wait_seconds: NonNegative


class OperateConfig(Section):
    """How the line is operated, which no step depends on. `schedule`: cron line of `points2model serve`, in `timezone`.
    `promote`: whether a run promotes a student that is good enough. `git`: promotions are committed and tagged.
    `push`: a run that ends sends data, models and the run-cache to DVC's default remote. `notify`: where failures and
    promotions are told, a webhook's URL or a Prefect block as type/name."""

    schedule: Name | None
    timezone: Annotated[Name, AfterValidator(_checked_timezone)]
    inbox: InboxConfig
    promote: Literal["automatic", "manual"]
    git: bool
    push: bool
    notify: Annotated[Name, AfterValidator(checked_notify)] | None
