"""The folder report/ next to report.html: pages with many images, their index, and tables for scripts.

weak.html, weak-001.html ...   weak images with their pseudo masks, the lowest mean score first; weak.csv: all of them
val.html, val-001.html ...     val images with what the student finds, the worst first; val.csv: all of them
errors.csv                     each false alarm and each missed object of the student

Images are within the pages, PAGE of them in each: a folder of thousands of small files would be slow to hash, to store
and to fetch. A page has no script; the index is sorted by style sheets.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from data.storage import atomic_dir, discard_partials
from data.text import safe_cell
from tasks.common.ordered_threads import ordered_thread_map
from tasks.common.progress import Bar
from tasks.reporting.page import render
from tasks.reporting.rows import Row
from tasks.reporting.val import ValImages, quality
from tasks.reporting.weak import WeakImages

FOLDER = "report"
PAGE, LONGEST_SIDE = 48, 320
PAGE_TEMPLATE, INDEX_TEMPLATE = "page.html.j2", "index.html.j2"


class Column(NamedTuple):
    """A column of an index: its heading, a value for each image, and whether high ones come first."""

    heading: str
    values: Sequence[Any]
    high_first: bool = False

    def ranks(self) -> list[int]:
        """The place of each image if they are sorted by this column; images without a value are last."""
        known = [n for n, value in enumerate(self.values) if value is not None]
        known.sort(key=lambda n: self.values[n], reverse=self.high_first)
        places = {n: place for place, n in enumerate(known)}
        return [places.get(n, len(self.values)) for n in range(len(self.values))]


class Kind(NamedTuple):
    """What the pages of a kind show."""

    name: str
    """of the files: weak or val"""
    title: str
    note: str
    files: list[str]
    """file names of all images, in the order of the pages"""
    ids: list[int]
    columns: list[Column]
    """the first one is the order of the pages"""
    draw: Callable[[int, int], list[Row]]
    """rows of the images from one place to another, in the order of the pages"""


def write_pages(workspace: Path, title: str, weak: WeakImages, val: ValImages, limit: int) -> None:
    """Writes workspace/report, all of it or nothing.

    Args:
        title: of the report.
        limit: the most images of each kind, the first ones; the CSV files have all.
    """
    discard_partials(workspace, FOLDER)
    with atomic_dir(workspace / FOLDER) as folder:
        for kind in (_weak(weak), _val(val)):
            _write_table(folder / f"{kind.name}.csv", kind)
            _write_kind(folder, kind, title, min(limit, len(kind.ids)))
        _write_csv(
            folder / "errors.csv",
            ["kind", "image_id", "file_name", "id", "class", "score", "area", "why"],
            (
                [e.kind, e.image_id, e.file_name, e.id, e.category, _decimals(e.score), f"{e.area:g}", e.why]
                for e in val.errors()
            ),
        )


def _weak(weak: WeakImages) -> Kind:
    images = weak.images
    files = dict(
        zip(*(weak.split.images[name].to_pylist() for name in ("image_id", "file_name")), strict=True)
    )
    columns = [
        Column("mean score", [one.score for one in images]),
        Column("lowest score", [one.lowest for one in images]),
        Column("clicks", [one.clicks for one in images], high_first=True),
        Column("without a mask", [one.clicks - one.masks for one in images], high_first=True),
    ]
    if weak.measured:
        columns.insert(2, Column("mean IoU", [None if one.iou is None else one.iou / 100 for one in images]))
    return Kind(
        "weak",
        "Weak images",
        "The masks that the student learns from, and their clicks; a red cross is a click without a mask. Point at a "
        "mask for its class and score. A click without a mask has the score 0.",
        [files[one.image_id] for one in images],
        [one.image_id for one in images],
        columns,
        lambda begin, end: weak.page_rows(images[begin:end], LONGEST_SIDE),
    )


def _val(val: ValImages) -> Kind:
    ids = val.worst()
    files = dict(
        zip(*(val.split.images[name].to_pylist() for name in ("image_id", "file_name")), strict=True)
    )
    found = [val.student[id] for id in ids]
    columns = [
        Column("F1", [quality(one) for one in found]),
        Column("missed", [len(one.missed()) for one in found], high_first=True),
        Column("false alarms", [len(one.false_alarms()) for one in found], high_first=True),
        Column("objects", [len(one.objects) for one in found], high_first=True),
    ]
    return Kind(
        "val",
        "Validation images",
        f"What the student finds with a score of {val.min_scores['student']:g} or more. False alarms are red, missed "
        "objects have a dashed outline. Point at one for its class, score and id.",
        [files[id] for id in ids],
        ids,
        columns,
        lambda begin, end: val.page_rows(ids[begin:end], LONGEST_SIDE),
    )


def _write_kind(folder: Path, kind: Kind, title: str, shown: int) -> None:
    starts = range(0, shown, PAGE)
    content: dict[str, Any] = {
        "title": title, "kind": kind, "shown": shown, "pages": len(starts), "total": len(kind.ids), "per_page": PAGE,
    }  # fmt: skip
    jobs: Iterator[tuple[int, Callable[[], list[Row]]]] = (
        (PAGE << 22, partial(kind.draw, begin, min(begin + PAGE, shown))) for begin in starts
    )
    with Bar(f"pages of {kind.name} images", shown, "image") as bar:
        for number, rows in enumerate(ordered_thread_map(jobs), start=1):
            page = render(PAGE_TEMPLATE, **content, number=number, rows=rows)
            (folder / f"{kind.name}-{number:03d}.html").write_text(page, encoding="utf-8")
            bar.advance(len(rows))
    ranks = list(
        zip(*(column.ranks() for column in kind.columns), Column("", kind.files).ranks(), strict=True)
    )
    (folder / f"{kind.name}.html").write_text(
        render(INDEX_TEMPLATE, **content, ranks=ranks[:shown]), encoding="utf-8"
    )


def _write_table(path: Path, kind: Kind) -> None:
    headings = [column.heading.replace(" ", "_") for column in kind.columns]
    rows = zip(kind.ids, kind.files, *(column.values for column in kind.columns), strict=True)
    _write_csv(
        path, ["image_id", "file_name", *headings], ([*row[:2], *map(_decimals, row[2:])] for row in rows)
    )


def _decimals(value: Any) -> Any:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else value


def _write_csv(path: Path, header: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([safe_cell(cell) for cell in row] for row in rows)
