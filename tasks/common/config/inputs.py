"""Sections `demo`, `ingest`, `points`, `review` and `input`: the data, and how images and points are read."""

from __future__ import annotations

import re
import string
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from data.storage import is_s3
from models.config import MAX_SIDE, TileConfig
from tasks.common.config.section import (
    FileName,
    Name,
    NonNegativeInt,
    Number,
    Positive,
    PositiveInt,
    Section,
    Share,
    Side,
    Source,
)


class DemoConfig(Section):
    """The drawn demo data set; data/demo/synthetic.py explains each setting."""

    train_images: Annotated[PositiveInt, Field(le=10**6)]
    val_images: Annotated[PositiveInt, Field(le=10**6)]
    strong_share: Share
    image_size: Side
    classes: tuple[Name, ...]
    objects_min: Annotated[NonNegativeInt, Field(le=10**4)]
    objects_max: Annotated[PositiveInt, Field(le=10**4)]
    size_min: Positive
    size_max: Positive
    overlap: Share
    noise: Share
    distractors: Annotated[NonNegativeInt, Field(le=10**4)]


class FoldersConfig(Section):
    """The folder below the image root that a split's file names are relative to; "" for the root itself."""

    strong: Name
    val: Name
    weak: Name
    kept_aside: Name


Files = FileName | Annotated[tuple[FileName, ...], Field(min_length=1, max_length=1000)]
Part = Annotated[Number, Field(gt=0, lt=1)]


class IngestConfig(Section):
    """Where the user's images and masks are: folders, or s3://BUCKET/PREFIX (docs/data.md).

    `strong`, `val`, `weak`, `kept_aside`: annotation files or folders inside the folder `annotations` (`.` is that
    folder itself), a name or a list of names. A number as `val` is the share of the images of `strong` that is measured
    on. With null as `weak`, all images that no other file lists are weak.
    `format`: of the files with masks; `auto` detects it from the content of each file, as always for `weak`.
    `crowd`: annotations with `iscrowd` are regions to ignore (`keep`), or `objects` like all others: CVAT's COCO export
    writes every painted mask as a crowd.
    `mask_class`: the class of masks that carry none (label maps, binary masks); null: the name of the sub-folder that
    they are in, else `object`.
    `on_reject`: where an image can't be read or has another size than its record, or a COCO annotation has a fault:
    `stop` (list all, write nothing), or `report` it and go on without it.
    """

    images: Source
    annotations: Source
    strong: Files
    val: Files | Part
    weak: Files | None
    kept_aside: Files | None
    format: Literal[
        "auto", "coco", "yolo-seg", "label-maps", "voc", "cityscapes", "labelme", "cvat", "label-studio", "scalabel",
        "bdd-bitmask",
    ]  # fmt: skip
    folders: FoldersConfig
    crowd: Literal["keep", "objects"]
    mask_class: FileName | None
    on_reject: Literal["stop", "report"]

    def files(self, split: str) -> tuple[str, ...]:
        """The annotation files and folders of a split; none for null, or a share."""
        given: object = getattr(self, split)
        return given if isinstance(given, tuple) else (given,) if isinstance(given, str) else ()


PointField = Literal["x", "y", "image", "category", "id", "annotator", "labelled_at", "object", "inside"]


Factor = Annotated[Number, Field(ge=1e-6, le=1e6)]


class AxesConfig(Section):
    """A factor for x and one for y."""

    x: Factor
    y: Factor


FACTOR_KINDS = ("one factor", "two factors")


def _tag(value: Any) -> str:
    return FACTOR_KINDS[isinstance(value, dict | AxesConfig)]


Factors = Annotated[
    Annotated[Factor, Tag(FACTOR_KINDS[0])] | Annotated[AxesConfig, Tag(FACTOR_KINDS[1])], Discriminator(_tag)
]
"""One factor, or `{x: 2, y: 1.5}`. The discriminator keeps an error to the form that was written."""


class PointsConfig(Section):
    """Where the point labels are: a folder of files, their format (`auto` finds it by content); see docs/points.md.

    `columns`: names of columns of CSV and Parquet files, of VIA's class attribute and of CVAT's attribute `inside`,
    e.g. `{x: col, y: row}`; others are found by their usual names.
    `classes`: a file in the folder `files` that maps names in point files to classes of the data set.
    `frame_name`: file name of the image of a frame in a CVAT video ({frame}, from 0), or of a slice of an ImageJ stack
    ({slice}, from 1).
    `duplicate_radius`: clicks of two annotators within so many pixels are of one object; null: in the same pixel only.
    `scale`: pixels to a unit of the files' coordinates: a factor (microns, images clicked at another size), or one for
    x and one for y, `{x: 2, y: 1.5}`.
    `on_reject`: at a point that can't be used: `stop` (list all, write nothing), or `report` it and go on without it.
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
            # A width of a billion digits, or one taken from a field, would fill the memory.
            short = not any(re.search(r"[0-9]{3}|[{]", form or "") for _, _, form, _ in parts)
            if short and {"frame", "slice"} & set(fields) and set(fields) <= {"frame", "slice", "video"}:
                pattern.format(frame=7, slice=8, video="v")
                return pattern
        except (ValueError, LookupError, AttributeError):
            pass
        raise ValueError(
            f"found {pattern!r}; expected a pattern with {{frame}}, e.g. frame_{{frame:06d}} or {{video}}_{{frame}}"
        )


class ReviewConfig(Section):
    """Decisions of reviewers; see docs/decisions.md.

    `decisions`: the folder of their files, in the project. Without files there are no decisions. It can't be null: DVC
    can't make a stage depend on a path that may be null.
    """

    decisions: FileName

    @field_validator("decisions")
    @classmethod
    def _is_a_folder_here(cls, name: str) -> str:
        path = PurePosixPath(name)
        if is_s3(name) or ":/" in name or ".." in path.parts or name.startswith("workspace/"):
            raise ValueError(f"found {name!r}; expected a folder in the project, outside of workspace/")
        return name


class InputConfig(Section):
    """Images are resized so that the short side is `short_side`, and the long one at most `max_side`.

    `enlarge: false`: smaller images keep their size, for images whose pixels all have one scale (microscopes)."""

    # At least 2: torch can't shrink an image to a single pixel.
    short_side: Annotated[int, Field(ge=2, le=MAX_SIDE)]
    max_side: Annotated[int, Field(ge=2, le=MAX_SIDE)]
    enlarge: bool
    tile: TileConfig | None
    """null: the network sees images whole"""
