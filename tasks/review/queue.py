"""The queue: which objects, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from data.masks.rle import IntArray
from tasks.review.ledger import Ledger
from tasks.review.objects import STATUSES, Objects
from tasks.review.rank import Doubts

Order = Literal["doubt", "score", "disagreement", "size", "overlap", "latest", "given"]


class Filters(BaseModel):
    """What a queue has; None and "all" leave nothing out.

    Attributes:
        order: a sign, the worst first; `latest`: what was decided last comes first; `given`: as `listed` has them.
        category: of the pseudo mask, a class's id.
        proposer: which drew the mask.
        image: a part of the image's file name.
        mask: `with` one, `without`, `ok` or `rough` (the refined mask is used, or the rough one).
        decided: `no`, `yes` (see tasks/review/ledger.py), `contradicted`.
        by: a reviewer who decided something on it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: Order = "doubt"
    category: int | None = None
    proposer: str | None = None
    image: str | None = None
    mask: Literal["all", "with", "without", "ok", "rough"] = "with"
    decided: Literal["all", "no", "yes", "contradicted"] = "no"
    by: str | None = None


def select(
    objects: Objects, doubts: Doubts, ledger: Ledger, filters: Filters, listed: Sequence[str] | None = None
) -> IntArray:
    """Rows of the objects of a queue, the first one first; ties in the order of images.

    Args:
        listed: ids of the only objects to review, in the order `given`; those that are gone are left out.
    """
    rows = np.arange(len(objects))
    if listed is not None:
        rows = np.array([objects.row_of[name] for name in listed if name in objects.row_of], np.int64)
    keep = np.ones(len(objects), np.bool_)
    if filters.category is not None:
        keep &= objects.category == filters.category
    if filters.proposer is not None:
        known = filters.proposer in objects.proposers
        keep &= objects.proposer == (objects.proposers.index(filters.proposer) if known else -2)
    if filters.image:
        names = objects.weak.images["file_name"]
        found = pc.match_substring(names, filters.image, ignore_case=True).to_numpy(zero_copy_only=False)
        keep &= found.astype(np.bool_)[objects.image]
    if filters.mask in ("with", "without"):
        keep &= (objects.area > 0) == (filters.mask == "with")
    elif filters.mask != "all":
        keep &= objects.status == STATUSES.index(filters.mask)
    if filters.decided == "contradicted":
        keep &= ledger.contradicted
    elif filters.decided != "all":
        keep &= ledger.decided == (filters.decided == "yes")
    if filters.by is not None:
        keep &= np.isin(np.arange(len(objects)), ledger.of_reviewer(filters.by))
    rows = rows[keep[rows]]
    if filters.order == "given":
        return rows
    by = ledger.latest()[rows] if filters.order == "latest" else getattr(doubts, filters.order)[rows]
    return rows[np.argsort(-by, kind="stable")]
