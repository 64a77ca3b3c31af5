"""The base of all sections, and the types of their values: numbers within bounds, names, sources of data."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from data.storage import is_s3, split_s3


def _no_boolean(value: Any) -> Any:
    """Pydantic reads true as 1."""
    if isinstance(value, bool):
        raise ValueError(f"found {str(value).lower()}")
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("found a NUL character; expected a text without one")
    return value


def _not_empty(value: str) -> str:
    if not value.strip():
        raise ValueError("found an empty text; expected a name")
    return value


# Bounds are far above what anybody uses. A value beyond them is a slip, and would end in an overflow, in a full memory
# or never.
WholeNumber = Annotated[int, BeforeValidator(_no_boolean)]
Number = Annotated[float, BeforeValidator(_no_boolean)]
Share = Annotated[Number, Field(ge=0, le=1)]
PositiveInt = Annotated[WholeNumber, Field(ge=1, le=10**9)]
NonNegativeInt = Annotated[WholeNumber, Field(ge=0, le=10**9)]
Positive = Annotated[Number, Field(gt=0, le=1e9)]
NonNegative = Annotated[Number, Field(ge=0, le=1e9)]
Batch = Annotated[WholeNumber, Field(ge=1, le=2**16)]
Side = Annotated[WholeNumber, Field(ge=1, le=2**15)]
"""Pixels of a drawn image."""
Parallel = Annotated[WholeNumber, Field(ge=1, le=1024)]
Detections = Annotated[WholeNumber, Field(ge=1, le=10**5)]
Draws = Annotated[WholeNumber, Field(ge=0, le=10**6)]
Few = Annotated[WholeNumber, Field(ge=1, le=1000)]
Strength = Annotated[Number, Field(ge=0, le=1000)]
"""Of an augmentation."""
Scale = Annotated[Number, Field(ge=0.001, le=1000)]
Steps = Annotated[tuple[PositiveInt, ...], Field(max_length=1000)]
Name = Annotated[str, Field(max_length=4096), AfterValidator(_no_nul)]
FileName = Annotated[Name, AfterValidator(_not_empty)]


def _checked_source(value: str) -> str:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", value)
    if is_s3(value):
        try:
            split_s3(value)
        except ValueError:
            expected = (
                "s3://BUCKET/PREFIX; credentials and endpoint are not part of it: boto3 reads them from"
            )
            raise ValueError(
                f"found an S3 address without a valid bucket name; expected {expected} AWS_PROFILE, AWS_ENDPOINT_URL, "
                "~/.aws"
            ) from None
    elif scheme is not None:  # the rest may hold a password
        expected = "a path, or s3://BUCKET/PREFIX; download the data first"
        raise ValueError(f"found an address of scheme {scheme[1]}; expected {expected}")
    return value


Source = Annotated[FileName, AfterValidator(_checked_source)]
"""A path, or s3://BUCKET/PREFIX."""


def _no_address(weights: str) -> str:
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", weights):
        expected = "a folder, or the id of a hub model: OWNER/NAME"
        raise ValueError(f"found an address of scheme {scheme[1]}; expected {expected}")
    return weights


HubModel = Annotated[FileName, AfterValidator(_no_address)]
"""A folder, or the id of a model of the Hugging Face hub, OWNER/NAME."""


class Section(BaseModel):
    """Base of all sections: no unknown keys, no missing keys, no change after reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
