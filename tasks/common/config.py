"""params.yaml as frozen, strict models: every key is required, an unknown one is an error that names the nearest.

The sections are the steps of the pipeline (plus what several steps share: `seed`, `input`, `model`, `prompt`); dvc.yaml
lists which step depends on which section. `runtime` holds what must not change a result (device, workers), so
no step depends on it.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from data import strict_yaml
from data.messages import plain
from data.storage import is_s3, split_s3
from models.config import (
    MAX_SIDE,
    SIZE_DIVISOR,
    InferenceConfig,
    PromptConfig,
    RefineNetConfig,
    SOLOv2Config,
    TileConfig,
)
from tasks.common.errors import TaskError


def _no_boolean(value: Any) -> Any:
    """True is 1 to pydantic; who writes `steps: yes` means something else."""
    if isinstance(value, bool):
        raise ValueError(f"found {str(value).lower()}; expected a number")
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("found a NUL character in it, which no name may hold")
    return value


def _not_empty(value: str) -> str:
    if not value.strip():
        raise ValueError("found an empty text; expected a name")
    return value


# Bounds lie far above what anybody uses: what lies beyond is a slip, and would end in an overflow, in a full memory
# or never.
_Int = Annotated[int, BeforeValidator(_no_boolean)]
_Float = Annotated[float, BeforeValidator(_no_boolean)]
Share = Annotated[_Float, Field(ge=0, le=1)]
PositiveInt = Annotated[_Int, Field(ge=1, le=10**9)]
NonNegativeInt = Annotated[_Int, Field(ge=0, le=10**9)]
Positive = Annotated[_Float, Field(gt=0, le=1e9)]
NonNegative = Annotated[_Float, Field(ge=0, le=1e9)]
Batch = Annotated[_Int, Field(ge=1, le=2**16)]
Side = Annotated[_Int, Field(ge=1, le=2**15)]
"""Pixels of a drawn image."""
Parallel = Annotated[_Int, Field(ge=1, le=1024)]
Detections = Annotated[_Int, Field(ge=1, le=10**5)]
Draws = Annotated[_Int, Field(ge=0, le=10**6)]
Few = Annotated[_Int, Field(ge=1, le=1000)]
Strength = Annotated[_Float, Field(ge=0, le=1000)]
"""Of an augmentation."""
Scale = Annotated[_Float, Field(ge=0.001, le=1000)]
Steps = Annotated[tuple[PositiveInt, ...], Field(max_length=1000)]
Name = Annotated[str, Field(max_length=4096), AfterValidator(_no_nul)]
FileName = Annotated[Name, AfterValidator(_not_empty)]


def _checked_source(value: str) -> str:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", value)
    if is_s3(value):
        split_s3(value)
    elif scheme is not None:  # the rest may hold a password
        raise ValueError(
            f"found an address of scheme {scheme[1]}; expected a path, or s3://BUCKET/PREFIX; download the data first"
        )
    return value


Source = Annotated[FileName, AfterValidator(_checked_source)]
"""A path, or s3://BUCKET/PREFIX."""


class Section(BaseModel):
    """Base of all sections: no unknown keys, no missing keys, no change after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DemoConfig(Section):
    """The drawn demo data set; see data/demo/synthetic.py for what each knob does."""

    train_images: Annotated[PositiveInt, Field(le=10**6)]
    val_images: Annotated[PositiveInt, Field(le=10**6)]
    strong_share: Share
    image_size: Side
    shapes: tuple[Name, ...]
    objects_min: Annotated[NonNegativeInt, Field(le=10**4)]
    objects_max: Annotated[PositiveInt, Field(le=10**4)]
    size_min: Positive
    size_max: Positive
    overlap: Share
    contrast: Share
    colour_cue: Share
    texture: Share
    noise: Share
    distractors: Annotated[NonNegativeInt, Field(le=10**4)]


class FoldersConfig(Section):
    """The folder below the image root that a split's file names are relative to; "" for the root itself."""

    strong: Name
    val: Name
    weak: Name
    kept_aside: Name


class IngestConfig(Section):
    """Where the user's images and masks are: folders, or s3://BUCKET/PREFIX (docs/data.md). Annotation files are names
    inside the folder `annotations`.

    `format`: of the files with masks; `auto` finds it by content, for each by itself, as it is for `weak`.
    `crowd`: annotations with `iscrowd` are regions to ignore (`keep`), or `objects` like all others: CVAT's COCO export
    writes every painted mask as a crowd.
    `on_reject`: at an image that can't be read or isn't of its record's size, or an annotation of a COCO file at fault,
    `stop` (list all, write nothing) or `report` and go on without it, and an image's annotations.
    """

    images: Source
    annotations: Source
    strong: FileName
    val: FileName
    weak: FileName | None
    kept_aside: FileName | None
    format: Literal["auto", "coco", "scalabel", "bdd-bitmask"]
    folders: FoldersConfig
    crowd: Literal["keep", "objects"]
    on_reject: Literal["stop", "report"]


PointField = Literal["x", "y", "image", "category", "id", "annotator", "labelled_at"]


Factor = Annotated[_Float, Field(ge=1e-6, le=1e6)]


class AxesConfig(Section):
    """A factor for x and one for y."""

    x: Factor
    y: Factor


_TAGS = ("one factor", "two factors")


def _tag(value: Any) -> str:
    return _TAGS[isinstance(value, dict | AxesConfig)]


Factors = Annotated[
    Annotated[Factor, Tag(_TAGS[0])] | Annotated[AxesConfig, Tag(_TAGS[1])], Discriminator(_tag)
]
"""Told apart by hand, so that an error is about the one that is meant."""


class PointsConfig(Section):
    """Where the point labels are: a folder of files, their format (`auto` finds it by content); see docs/points.md.

    `columns`: names of columns of CSV and Parquet files, and of VIA's attribute that is the class, e.g.
    `{x: col, y: row}`; those that it doesn't name are known by usual names. `classes`: a file in the folder `files`
    that maps names in point files to classes of the data set. `frame_name`: the image of a CVAT video's frame.
    `duplicate_radius`: two annotators' clicks within so many pixels are one object's; null: in the same pixel alone.
    `scale`: pixels a unit of the files' coordinates: 1, another factor (microns; images that were clicked at another
    size), or one each, `{x: 2, y: 1.5}`.
    `on_reject`: at a point that can't be used, `stop` (list all, write nothing) or `report` and go on without it.
    """

    files: Source
    format: Name
    columns: dict[PointField, Name] | None
    classes: FileName | None
    frame_name: Name
    duplicate_radius: Positive | None
    scale: Factors
    on_reject: Literal["stop", "report"]

    @property
    def factors(self) -> tuple[float, float]:
        """`scale` of x and of y."""
        return (
            (self.scale.x, self.scale.y) if isinstance(self.scale, AxesConfig) else (self.scale, self.scale)
        )

    @field_validator("frame_name")
    @classmethod
    def _names_the_frame(cls, pattern: str) -> str:
        try:
            parts = [part for part in string.Formatter().parse(pattern) if part[1] is not None]
            fields = [field for _, field, _, _ in parts]
            # A width of a billion, or one that is itself a field, would fill the memory.
            short = not any(re.search(r"[0-9]{3}|[{]", form or "") for _, _, form, _ in parts)
            if short and "frame" in fields and set(fields) <= {"frame", "video"}:
                pattern.format(frame=7, video="v")
                return pattern
        except (ValueError, LookupError, AttributeError):
            pass
        raise ValueError(
            f"found {pattern!r}; a pattern with {{frame}}, e.g. frame_{{frame:06d}}, {{video}}_{{frame}}"
        )


class InputConfig(Section):
    """Images are resized so that the short side is `short_side`, unless the long one would pass `max_side`.

    `enlarge: false`: smaller ones stay as they are, right where a pixel means the same in all images (microscopes)."""

    # From 2: torch can't shrink an image to a single pixel.
    short_side: Annotated[int, Field(ge=2, le=MAX_SIDE)]
    max_side: Annotated[int, Field(ge=2, le=MAX_SIDE)]
    enlarge: bool
    tile: TileConfig | None
    """null: the network sees images whole"""


def model_input(folder: Path, meta: Mapping[str, Any]) -> InputConfig:
    """How large the images of a model come in, by its model.json.

    Raises:
        TaskError: it doesn't say, or nothing that can be.
    """
    step = "Train or import it again, or use the version that wrote it"
    if "input" not in meta:
        raise TaskError(
            f"{folder}/model.json: found no `input`; expected a SOLOv2 of this project, or an imported one. {step}"
        )
    try:
        return InputConfig.model_validate(meta["input"])
    except ValidationError as error:
        listed = "\n".join(
            f"  - {'.'.join(('input', *map(str, one['loc'])))}: {one['msg']}, found {one['input']!r:.100}"
            for one in error.errors()
        )
        raise TaskError(
            f"{folder}/model.json: `input` is edited, or of another version:\n{listed}\n{step}"
        ) from None


class AugmentConfig(Section):
    """Training augmentation, drawn anew for every sample from its own seed; see data/samples/transforms.py."""

    flip: Share
    vertical_flip: Share
    rotate90: Share
    scale_min: Scale
    scale_max: Scale
    crop: bool
    crop_side: Annotated[_Int, Field(ge=SIZE_DIVISOR, le=2**15, multiple_of=SIZE_DIVISOR)] | None
    brightness: Strength
    contrast: Strength
    saturation: Strength
    hue: Annotated[_Float, Field(ge=0, le=0.5)]
    grayscale: Share
    invert: Share
    tint: Share
    blur: Share
    blur_sigma: Strength
    erase: Share
    erase_side: Share

    @model_validator(mode="after")
    def _scales_in_order(self) -> Self:
        if self.scale_min > self.scale_max:
            raise ValueError(
                f"scale_min ({self.scale_min:g}) must not be above scale_max ({self.scale_max:g})"
            )
        return self


SCHEDULED = ("warmup_steps", "decay_at", "milestones")


def _step_number(value: Any, steps: int, least: int) -> Any:
    """The step that a share of `steps` is, below the last one unless it is 1; what is no share stays as it is."""
    if not isinstance(value, float) or not math.isfinite(value) or (value > 1 and value.is_integer()):
        return value
    if not 0 <= value <= 1:
        raise ValueError(f"found {value:g}; a step number, or a share of steps from 0.0 to 1.0")
    return steps if value == 1 else min(max(least, round(value * steps)), max(least, steps - 1))


class TrainConfig(Section):
    """What teacher, refiner and student share: one optimiser, one schedule, counted in steps.

    `batch_size` is the whole step's, over all processes; it goes through the network in `accumulate` pieces a process,
    which changes nothing but rounding (and the statistics of batch norm that trains).
    `ema`: the share of the weights' running average that a step keeps; the checkpoint then holds the average.
    null: it holds the weights themselves.
    `warmup_steps`, `decay_at` and `milestones` are step numbers, or shares of `steps` as numbers with a point: 0.5.
    `channels_last`, `fused` (the optimiser) and `compile` (the network) are for speed; they round otherwise."""

    steps: PositiveInt
    batch_size: Batch
    accumulate: Batch
    optimizer: Literal["adamw", "adam", "sgd"]
    lr: Positive
    weight_decay: NonNegative
    warmup_steps: NonNegativeInt
    schedule: Literal["cosine", "step"]
    decay_at: Steps
    clip_norm: Positive | None
    ema: Annotated[_Float, Field(gt=0, lt=1)] | None
    precision: Literal["fp32", "bf16", "fp16"]
    channels_last: bool
    fused: bool
    compile: bool
    checkpoint_every: PositiveInt
    log_every: PositiveInt

    @field_validator(*SCHEDULED, mode="before", check_fields=False)
    @classmethod
    def _shares_of_steps(cls, value: Any, info: ValidationInfo) -> Any:
        steps = info.data.get("steps", 1000)  # wrong steps are reported by themselves, not shares of them too
        if not isinstance(value, list):
            return _step_number(value, steps, least=0)
        numbers = [_step_number(one, steps, least=1) for one in value]
        if any(isinstance(one, float) and math.isfinite(one) for one in value):
            return list(dict.fromkeys(numbers))  # of few steps two shares may be the same one
        return numbers

    @model_validator(mode="after")
    def _steps_in_order(self) -> Self:
        if self.schedule == "step" and not self.decay_at:
            raise ValueError("schedule: step needs at least one step number in decay_at")
        if any(not 0 < step < self.steps for step in self.decay_at):
            raise ValueError(f"decay_at {list(self.decay_at)} must lie between 0 and steps ({self.steps})")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate ({self.accumulate}) must be at most batch_size ({self.batch_size})")
        if self.checkpoint_every % self.log_every:
            # The log's rows are means over whole windows, so a state is kept only where a window ends.
            raise ValueError(
                f"checkpoint_every ({self.checkpoint_every}) must be a multiple of log_every ({self.log_every})"
            )
        return self


class DetectorTrainConfig(TrainConfig):
    """Training of a SOLOv2: the grids and size ranges (input pixels) may differ between teacher and student.

    `inner_points`: random pixels of each object, drawn at every step, whose cells learn it too [0 in the paper].
    `mask_pairs`: the mask loss takes at most this many (cell, object) pairs a step, drawn evenly; null: all [null].
    """

    inner_points: Annotated[NonNegativeInt, Field(le=10**4)]
    mask_pairs: PositiveInt | None
    grids: tuple[Few, ...]
    ranges: tuple[tuple[NonNegative, Positive], ...]
    augment: AugmentConfig

    @property
    def weighs_categories(self) -> bool:
        """Whether an object's weight scales its part of the category loss too."""
        return True


class TeacherConfig(DetectorTrainConfig):
    """`milestones` are the steps whose weights make the refiner's training masks (METHOD.md: about 1/2 and 5/6).
    `holdout`: the share of the strong images that teacher and refiner don't train on, to measure refinement."""

    holdout: Annotated[_Float, Field(ge=0, lt=1)]
    milestones: Steps

    @model_validator(mode="after")
    def _milestones_within(self) -> Self:
        if not self.milestones or any(step > self.steps for step in self.milestones):
            raise ValueError(f"milestones must be 1 or more step numbers, at most steps ({self.steps})")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise: found {list(self.milestones)}")
        return self


class RefinerConfig(TrainConfig):
    """MaskRefineNet and its training: `batch_size` images a step, at most `crops` of their objects.

    A crop is the rough mask's box enlarged by a draw between `enlarge_min` and `enlarge_max`; in use by `enlarge`,
    and refined `rounds` times, each time from the last one's mask. The weights of the last step, or of one of
    `milestones` where they do better on held-out images, are taken. There it is decided for each of `gate_bins` sizes
    of masks, or for all where one has less than `gate_min_objects` or `gate_min_images`, whether refined masks are
    used: not where their mean gain lies `gate_errors` standard errors below 0.
    """

    net: RefineNetConfig
    crops: Batch
    dice_weight: NonNegative
    cross_entropy_weight: NonNegative
    enlarge_min: Scale
    enlarge_max: Scale
    augment: AugmentConfig
    enlarge: Annotated[_Float, Field(ge=1, le=1000)]
    rounds: Few
    milestones: Steps
    gate_bins: Few
    gate_min_objects: PositiveInt
    gate_min_images: PositiveInt
    gate_errors: NonNegative

    @model_validator(mode="after")
    def _milestones_within(self) -> Self:
        if any(step >= self.steps for step in self.milestones):
            raise ValueError(
                f"milestones {list(self.milestones)} must lie below steps ({self.steps}), which always counts"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise: found {list(self.milestones)}")
        return self


class PseudoConfig(Section):
    """Pseudo masks at the points: images a batch, crops a batch; images and points of a Parquet part, at most.
    `on_failed`: where an image can't be read, `stop` or `report` its points as failed and go on."""

    batch_size: Batch
    crop_batch_size: Batch
    part_images: PositiveInt
    part_points: PositiveInt
    on_failed: Literal["stop", "report"]


class StudentConfig(DetectorTrainConfig):
    """`masks`: which pseudo masks to learn from; `weight_by_score`: what of a pseudo label's part in the
    losses its score scales: `none`, the `mask`'s alone (that an object of this class is there is sure), or `both`.
    `classes_from`: where a pseudo label's class is learnt: in the cells that its `mask` says, as a true one's, or from
    the `click`, whose cell is sure of it: then no cell that the mask touches is taught that there is none of its class.

    `unusable`: around a point without a mask, or with one below `min_score`, on an image that has others, `ignore`
    teaches nothing, `background` that there is no object.
    `strong_share`: of each batch, from strong images, whose masks are true; null: each image comes as often as any
    other [null]. `start`: from the weights that the seed draws, from the teacher's, or from those of the model that was
    promoted when this round began (docs/registry.md) [scratch]."""

    masks: Literal["refined", "rough", "none"]
    min_score: Share
    weight_by_score: Literal["none", "mask", "both"]
    classes_from: Literal["mask", "click"]
    unusable: Literal["ignore", "background"]
    strong_share: Annotated[_Float, Field(gt=0, lt=1)] | None
    start: Literal["scratch", "teacher", "promoted"]

    @property
    def weighs_categories(self) -> bool:
        return self.weight_by_score != "mask"


Evaluator = Literal["pycocotools", "faster_coco_eval"]


class EvaluateConfig(Section):
    """COCO mask AP on the val split and pseudo-mask quality: images a batch, images a Parquet part of predictions,
    whose code computes AP (`faster_coco_eval` is an optional package)."""

    inference: InferenceConfig
    batch_size: Batch
    part_images: PositiveInt
    evaluator: Evaluator
    max_detections: Detections
    size_bounds: tuple[Positive, Positive]


class PromotionConfig(Section):
    """When a new student takes the promoted model's place: `ap_tolerance` and `class_tolerance` are the AP points (of
    100) that it may lose over all classes and in any one. `bootstrap`: how often the val images are drawn again for
    the intervals beside the differences, which hold `confidence` of the draws; they inform, they don't decide."""

    ap_tolerance: NonNegative
    class_tolerance: NonNegative
    bootstrap: Draws
    confidence: Annotated[_Float, Field(gt=0, lt=1)]


class ReportConfig(Section):
    """What report.html shows: images a gallery, and the least score of a detection to be drawn."""

    title: Name
    gallery_images: Annotated[NonNegativeInt, Field(le=10**4)]
    score_threshold: Share


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


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[_Int, Field(ge=0, lt=2**31)]
    threads: Parallel
    """CPU threads of a step. Sums differ in their last bits with it, so it isn't part of `runtime`."""
    demo: DemoConfig
    ingest: IngestConfig
    points: PointsConfig
    input: InputConfig
    model: dict[str, Any]
    teacher: TeacherConfig
    prompt: PromptConfig
    """How clicks become the teacher's masks: those the refiner learns from, and the pseudo labels."""
    refiner: RefinerConfig
    pseudo: PseudoConfig
    student: StudentConfig
    evaluate: EvaluateConfig
    promotion: PromotionConfig
    report: ReportConfig
    runtime: RuntimeConfig
    operate: OperateConfig

    def detector(self, training: DetectorTrainConfig) -> SOLOv2Config:
        """The network of a teacher or student: section `model` with that training's grids and ranges."""
        whole = {**self.model, "grids": training.grids, "ranges": training.ranges}
        return SOLOv2Config.model_validate_json(_as_json(whole))


class ParamsError(TaskError):
    """What is wrong with a params file: `faults`, each beginning with its key."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        self.faults = faults
        count = f"{len(faults)} fault" + ("s" if len(faults) != 1 else "")
        lines = "\n".join(f"  - {fault}" for fault in map(plain, faults))
        super().__init__(
            f"{path}: {count}\n{lines}\nMend them and run again; recipes/ holds complete examples."
        )


def load_params(path: str | Path = "params.yaml") -> Params:
    """Reads and checks a params file.

    Raises:
        ParamsError: keys are missing, unknown or out of range; all are listed.
        TaskError: the file is missing or isn't YAML.
    """
    path = Path(path)
    try:
        text = strict_yaml.read_text(path)
    except FileNotFoundError:
        raise TaskError(
            f"{path}: no such file. Run in the project's folder (cd to it first); `points2model use demo` writes one."
        ) from None
    except OSError as error:
        raise TaskError(
            f"{path}: can't be read: {error.strerror or error}; give yourself the right to, or name a file"
        ) from None
    except strict_yaml.YamlError as error:
        raise _not_yaml(path, error) from None
    return parse_params(text, path)


def parse_params(text: str, path: Path) -> Params:
    """Reads and checks the text of a params file; `path` names it in errors.

    Raises:
        ParamsError: keys are missing, unknown or out of range; all are listed.
        TaskError: it isn't YAML.
    """
    faults: list[str] = []
    try:
        raw = strict_yaml.parse(text, doubled=faults)
    except strict_yaml.YamlError as error:
        raise _not_yaml(path, error) from None
    if not isinstance(raw, dict):
        raise TaskError(f"{path}: expected sections (seed, ingest, teacher, ...), found {type(raw).__name__}")
    if "extends" in raw:
        step = f"write the whole file with `points2model use {path} --all`"
        raise TaskError(f"{path}: extends: stands in recipes alone, since DVC must see every value; {step}")
    params = None
    try:
        params = Params.model_validate_json(_as_json(raw))
    except ValidationError as error:
        faults += [_explain(detail, Params, "") for detail in error.errors()]
    faults += _detector_faults(raw)
    if params is not None:
        faults += _crop_faults(params)
    if faults or params is None:
        raise ParamsError(path, faults)
    return params


def _not_yaml(path: Path, error: Exception) -> TaskError:
    return TaskError(
        f"{path}: not valid YAML: {error}; correct it there, or start from a recipe: `points2model use`"
    )


def _as_json(raw: Any) -> str:
    """YAML has lists where the models have tuples; checked as JSON, one may stand for the other."""
    return json.dumps(raw, default=str)


def _detector_faults(raw: dict[str, Any]) -> list[str]:
    """What is wrong with the networks that section `model` and a training's grids and ranges make together."""
    faults: list[str] = []
    for name in ("teacher", "student"):
        model, training = raw.get("model"), raw.get(name)
        if not isinstance(model, dict) or not isinstance(training, dict):
            continue
        faults += [
            f"model.{key}: stands in teacher and student" for key in ("grids", "ranges") if key in model
        ]
        own = {key: training[key] for key in ("grids", "ranges") if key in training}
        try:
            SOLOv2Config.model_validate_json(_as_json({**model, **own}))
        except ValidationError as error:
            for detail in error.errors():
                if detail["type"] == "missing" and detail["loc"][0] in ("grids", "ranges"):
                    continue  # said by the training's own section
                # What was found to disagree by the whole model has no place; its text begins with the key.
                key = str(detail["loc"][0]) if detail["loc"] else str(detail["ctx"]["error"]).split(":")[0]
                section = name if key in own else "model"
                faults.append(_explain(detail, SOLOv2Config, section))
    return list(dict.fromkeys(faults))


def _crop_faults(params: Params) -> list[str]:
    """Crops to learn from, of networks whose cells would be smaller in a crop than in a whole image; tiles of another
    size than the crops that a network learns from."""
    sections = (("teacher", params.teacher), ("refiner", params.refiner), ("student", params.student))
    tile = params.input.tile
    if params.model.get("grid_reference") is not None:
        return [
            f"{name}.augment.crop_side: found {section.augment.crop_side} with input.tile.side {tile.side}; make them "
            "equal: a network answers for pieces of the size that it learnt from"
            for name, section in sections
            if tile is not None and section.augment.crop_side != tile.side
        ]
    faults = [
        f"{name}.augment.crop_side: found {section.augment.crop_side} with model.grid_reference null; set the latter "
        "to the side (in pixels) for which the grids hold, so that cells of crops and of whole images are alike"
        for name, section in sections
        if section.augment.crop_side is not None
    ]
    if tile is not None:
        faults.append(
            f"input.tile: found side {tile.side} with model.grid_reference null; set the latter to the side (in "
            "pixels) for which the grids hold, or input.tile to null"
        )
    return faults


def _explain(detail: Any, root: type[BaseModel], section: str) -> str:
    """One pydantic error as a sentence: key, found, expected, nearest right key."""
    location = [str(part) for part in detail["loc"] if part not in _TAGS]
    key = ".".join([section] * bool(section) + location)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(root, location)
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"{key}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{key}: missing; every value that changes a result must stand in the file"
    if detail["type"] == "value_error":  # ours: the text says what was found
        return f"{key}: {detail['msg'].removeprefix('Value error, ')}"
    found = repr(detail["input"])
    return f"{key}: {detail['msg']}; found {found if len(found) <= 100 else found[:100] + '...'}"


def _known_keys(root: type[BaseModel], location: list[str]) -> list[str]:
    """The keys that the section at `location` (its last part being the unknown key) may have."""
    model: Any = root
    for part in location[:-1]:
        kind = model.model_fields[part].annotation
        # Of a section that may be null the section.
        model = next((one for one in get_args(kind) if hasattr(one, "model_fields")), kind)
    return list(model.model_fields)
