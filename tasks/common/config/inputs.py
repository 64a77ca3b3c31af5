"""Sections `demo`, `ingest`, `points` and `input`: the data, and how images and points are read."""

from __future__ import annotations

import re
import string
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

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
