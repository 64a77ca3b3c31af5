"""Points of ImageJ on the slices of a stack, each of which is an image of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from data.points.record import PointRecord, Problem


def of_slices(
    records: Sequence[PointRecord], slices: Sequence[int], frame_name: str, stack: str
) -> list[PointRecord]:
    """The records; if they are on several slices, each with the name of its slice's image.

    Args:
        records: of one file.
        slices: the slice of each, from 1; 0 for none.
        frame_name: `points.frame_name`; with a field {slice} it names the slices.
        stack: name of the stack, without a folder and a suffix the value of {video}.
    """
    used = sorted(set(slices) - {0})
    if len(used) < 2:
        return list(records)
    if "{slice" not in frame_name:
        shown = ", ".join(map(str, used[:5])) + (", ..." if len(used) > 5 else "")
        problem = Problem(
            "unknown_image",
            f"points on several slices of a stack ({shown})",
            "points of one image; or the slices' file names as points.frame_name, e.g. '{video}{slice:04d}'",
        )
        return [
            record if record.problem else record._replace(problem=problem, image=stack) for record in records
        ]
    video = PurePosixPath(stack).name
    return [
        record._replace(image=frame_name.format(frame=number - 1, slice=number, video=video), also=())
        if number
        else record
        for record, number in zip(records, slices, strict=True)
    ]
