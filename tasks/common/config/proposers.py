"""Section `proposers`: what draws masks at clicks; docs/proposers.md."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from tasks.common.config.section import Batch, HubModel, Name, Section, WholeNumber

ProposerName = Literal["teacher", "sam"]
Negatives = Annotated[WholeNumber, Field(ge=0, le=100)]


class SamConfig(Section):
    """A Segment Anything model.

    `weights`: a folder, or the id of a model of the Hugging Face hub, OWNER/NAME.
    `revision`: of a hub model: a commit, tag or branch; null: what its cache has, else the newest.
    `precision`: of the image encoder; masks are drawn in float32.
    `click_batch`: clicks whose masks are drawn at once; fewer need less memory.
    `negatives`: how many of the nearest other clicks each click gets as points that aren't on its object.
    """

    weights: HubModel
    revision: Name | None
    precision: Literal["fp32", "bf16"]
    click_batch: Batch
    negatives: Negatives


class ProposersConfig(Section):
    """`use`: the proposers that draw masks at the clicks of weak images. If there are several masks of a click, the
    judge chooses one of them (tasks/labelling/judge.py). In later rounds the last round's student is one more.
    """

    use: Annotated[tuple[ProposerName, ...], Field(min_length=1)]
    sam: SamConfig | None

    @field_validator("use", mode="before")
    @classmethod
    def _known_once(cls, names: Any) -> Any:
        known = get_args(ProposerName)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return names
        if not names:
            raise ValueError(f"found []; expected one or more of {', '.join(known)}")
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                expected = f"{near[0]}, the nearest name" if near else f"names among {', '.join(known)}"
                raise ValueError(f"found {name!r:.100}; expected {expected}")
            if names.count(name) > 1:
                raise ValueError(f"found {name} {names.count(name)} times; expected each name once")
        return names

    @model_validator(mode="after")
    def _settings_of_all(self) -> Self:
        if "sam" in self.use and self.sam is None:
            expected = f"keys {', '.join(SamConfig.model_fields)}, since `use` names sam"
            raise ValueError(f"sam: found null; expected {expected}")
        return self

    @property
    def used_sam(self) -> SamConfig | None:
        """Its settings, if it is in use."""
        return self.sam if "sam" in self.use else None

    @property
    def settings(self) -> dict[str, Any]:
        """The values that affect masks."""
        sam = self.used_sam
        return {"use": self.use, "sam": sam.model_dump() if sam is not None else None}
