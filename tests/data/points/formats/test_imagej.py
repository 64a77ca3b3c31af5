"""ImageJ: selections that its format's own library `roifile` writes, Results tables, and Cell Counter's XML."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
from roifile import ROI_TYPE, ImagejRoi

from data.errors import DataError
from data.points import SNIFFED, Options, PointRecord, importer_for
from data.points.file import PointFile
from data.points.formats import imagej_roi
from data.points.merge import resolve
from data.tables import Split
from tests.data.points.conftest import Read


def roi(
    points: Any,
    name: str = "",
    kind: ROI_TYPE = ROI_TYPE.POINT,
    counters: list[int] | None = None,
    **fields: Any,
) -> bytes:
    made = ImagejRoi.frompoints(np.array(points), name=name)
    made.roitype = kind
    for field, value in fields.items():
        setattr(made, field, value)
    if counters is not None:
        made.counters = np.array(counters, np.uint8)
        made.counter_positions = np.zeros(len(counters), np.uint32)
    return made.tobytes()


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def places(found: list[Any]) -> list[tuple[Any, ...]]:
    return [(r.image, r.x, r.y) for r in found if r.problem is None]


def test_a_selection_of_several_points(read: Read) -> None:
    """Whole coordinates and others are relative to pixels' centres."""
    found = read("imagej_roi", roi([[3, 4], [10, 20]]), "night/c.roi")
    assert places(found) == [("night/c", 3.5, 4.5), ("night/c", 10.5, 20.5)]
    found = read("imagej_roi", roi([[3.25, 4.0], [10.5, 20.75]]), "a.roi")
    assert places(found) == [("a", 3.75, 4.5), ("a", 11.0, 21.25)]
    assert [r.source_record for r in found] == ["selection, point 1", "selection, point 2"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.zip", ("a",)),
        ("a.png.zip", ("a.png",)),
        ("a_RoiSet.zip", ("a_RoiSet", "a")),
        ("RoiSet_a.zip", ("RoiSet_a", "a")),
        ("night/c/RoiSet.zip", ("night/c/RoiSet", "night/c")),
        ("night/c-RoiSet.zip", ("night/c-RoiSet", "night/c")),
        ("RoiSet.zip", ("RoiSet",)),
    ],
)
def test_the_image_is_the_file_s_or_the_folder_s_name(
    read: Read, name: str, expected: tuple[str, ...]
) -> None:
    content = archive(**{"0001-0004-0003.roi": roi([[3, 4]], "0001-0004-0003")})
    (found,) = read("imagej_roi", content, name)
    assert isinstance(found, PointRecord)
    assert (found.image, *found.also) == expected
    assert (found.x, found.y, found.category, found.choices) == (3.5, 4.5, None, ())


def test_selections_named_after_images_and_classes(read: Read, weak: Split) -> None:
    content = archive(
        **{
            "a.png.roi": roi([[3, 4]], "a.png"),
            "a.png-1.roi": roi([[5, 6]], "a.png-1"),
            "c.roi": roi([[1, 2]], "c"),
            "0003-0005.roi": roi([[5, 3]], "0003-0005"),
        }
    )
    one = Split(weak.root, weak.images, weak.instances, weak.categories[:1], weak.image_root)
    kept, rejected = resolve(read("imagej_roi", content, "RoiSet.zip"), one)  # type: ignore[arg-type]
    assert list(zip(*(kept[name].to_pylist() for name in ("image_id", "x", "y")), strict=True)) == [
        (1, 3.5, 4.5), (1, 5.5, 6.5), (4, 1.5, 2.5),
    ]  # fmt: skip
    assert [(r["reason"], r["image"]) for r in rejected.to_pylist()] == [("unknown_image", "RoiSet")]
    content = archive(**{"bolt.roi": roi([[3, 4]], "bolt"), "washer-1.roi": roi([[5, 6]], "washer-1")})
    kept, rejected = resolve(read("imagej_roi", content, "a.zip"), weak)  # type: ignore[arg-type]
    assert (sorted(kept["category_id"].to_pylist()), len(rejected)) == ([5, 9], 0)


def test_counters_and_groups_are_classes(read: Read) -> None:
    found = read("imagej_roi", roi([[3, 4], [5, 6], [7, 8]], counters=[0, 2, 0]), "a.roi")
    assert [r.category for r in found] == ["Counter 0", "Counter 2", "Counter 0"]
    found = read("imagej_roi", roi([[3, 4], [5, 6]], counters=[0, 0]), "a.roi")
    assert [r.category for r in found] == [None, None]
    found = read("imagej_roi", archive(**{"1.roi": roi([[3, 4]], group=3), "2.roi": roi([[3, 4]])}), "a.zip")
    assert [r.category for r in found] == ["Group 3", None]


def test_slices_of_a_stack_are_images_of_their_own(read: Read) -> None:
    content = archive(**{"1.roi": roi([[3, 4]], position=1), "2.roi": roi([[5, 6]], position=12)})
    found = read("imagej_roi", content, "a.zip")
    assert {r.problem.found for r in found} == {"points on several slices of a stack (1, 12)"}
    found = read("imagej_roi", content, "night/v.zip", Options(None, "{video}_{slice:03d}"))
    assert places(found) == [("v_001", 3.5, 4.5), ("v_012", 5.5, 6.5)]
    # All on one slice, as of an image that was part of a stack.
    found = read("imagej_roi", archive(**{"1.roi": roi([[3, 4]], position=7)}), "a.zip")
    assert places(found) == [("a", 3.5, 4.5)]


def test_other_selections_are_set_aside_and_broken_ones_reported(read: Read) -> None:
    huge = (
        b"Iout" + struct.pack(">hBxhhhhHi", 228, 10, 0, 0, 1, 1, 0, 2**31 - 1) + bytes(42)
    )  # two billion points
    content = archive(
        **{
            "polygon.roi": roi([[1, 1], [5, 1], [5, 5]], "polygon", ROI_TYPE.POLYGON),
            "broken.roi": b"Iout\0\0",
            "huge.roi": huge,
            "notes.txt": b"dear diary",
            "__MACOSX/._1.roi": b"\0",
            "1.roi": roi([[3, 4]]),
        }
    )  # fmt: skip
    found = read("imagej_roi", content, "a.zip")
    assert places(found) == [("a", 3.5, 4.5)]
    assert sorted((r.problem.reason, r.source_record) for r in found if r.problem) == [
        ("bad_record", "file broken.roi"), ("bad_record", "file huge.roi"), ("bad_record", "file notes.txt"),
        ("not_a_point", "file polygon.roi"),
    ]  # fmt: skip


def test_an_id_outlives_a_move_of_its_selection(read: Read) -> None:
    ids = [read("imagej_roi", archive(**{"bolt.roi": roi([[x, 4]])}), "a.zip")[0].point_id for x in (3, 9)]
    assert ids[0] == ids[1]


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Declared as such, and with a declared size that is too small: zipfile unpacks no more than is declared."""
    bomb = archive(**{f"{n}.roi": bytes(2**26) for n in range(5)})
    assert len(bomb) < 2**20
    path = tmp_path / "RoiSet.zip"
    path.write_bytes(bomb)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(
        DataError, match=r"5 files with 335,544,320 bytes when unpacked; expected at most 1,000,000"
    ):
        list(imagej_roi.read(PointFile(path), SNIFFED))
    monkeypatch.undo()
    size = struct.pack("<I", 2**26)
    path.write_bytes(
        archive(**{"1.roi": bytes(2**26), "2.roi": roi([[3, 4]])}).replace(size, struct.pack("<I", 64))
    )
    broken, good = list(imagej_roi.read(PointFile(path), SNIFFED))
    assert "can't be unpacked (Bad CRC-32" in broken.problem.found and good.problem is None  # type: ignore[union-attr]


def test_large_and_unusual_files_of_an_archive_are_not_unpacked(read: Read) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("large.roi", bytes(2**24 + 1), zipfile.ZIP_DEFLATED)
        file.writestr("lzma.roi", roi([[3, 4]]), zipfile.ZIP_LZMA)
        file.writestr("good.roi", roi([[3, 4]]), zipfile.ZIP_STORED)
    found = read("imagej_roi", buffer.getvalue(), "a.zip")
    assert [(r.source_record, r.problem.found) for r in found if r.problem] == [
        ("file large.roi", "a file of 16,777,217 bytes, compressed by method 8"),
        ("file lzma.roi", f"a file of {len(roi([[3, 4]]))} bytes, compressed by method 14"),
    ]
    assert places(found) == [("a", 3.5, 4.5)]


@pytest.mark.parametrize("content", [b"PK\x03\x04 no zip .roi", b"Iout", b"", b"{}"])
def test_files_that_are_no_selection(tmp_path: Any, content: bytes) -> None:
    path = tmp_path / "a.roi"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.roi: file"):
        list(imagej_roi.read(PointFile(path), SNIFFED))


RESULTS = """ ,Label,Area,Mean,X,Y,Counter,Count
1,a.png,0,120.5,3,4,0,2
2,night/b.png:bolt,0,99,10,20,0,2
"""


def test_a_results_table(read: Read, weak: Split) -> None:
    """Counts, images and classes by hand: two points, on the pixels (3, 4) and (10, 20)."""
    found = read("imagej_results", RESULTS, "Results.csv")
    assert places(found) == [("a.png", 3.5, 4.5), ("night/b.png", 10.5, 20.5)]
    assert [r.choices for r in found] == [("Counter 0",)] * 2
    one = Split(weak.root, weak.images, weak.instances, weak.categories[:1], weak.image_root)
    kept, rejected = resolve(found, one)  # type: ignore[arg-type]
    assert (kept["image_id"].to_pylist(), len(rejected)) == ([1, 2], 0)


@pytest.mark.parametrize(
    ("header", "row", "image", "category"),
    [
        (" ,Label,X,Y", "1,a.png,3,4", ("a.png",), None),
        (" ,Label,X,Y", "1,a.png:washer,3,4", ("a.png", "washer"), "washer"),
        (" ,Label,X,Y", "1,a.png:0003-0004,3,4", ("a.png",), None),
        (" ,Label,X,Y,Slice", "1,photos:img_7,3,4,7", ("img_7", "photos"), "img_7"),
        (" ,Label,X,Y,Slice", "1,photos:nut:img_7,3,4,7", ("img_7", "nut", "photos"), "nut"),
        (" ,Label,X,Y,Counter", "1,a.png,3,4,2", ("a.png",), "Counter 2"),
        ("Label,Mean,X,Y,class", "a.png,2,3,4,bolt", ("a.png",), "bolt"),
        (" \tLabel\tX\tY", "1\ta.png\t3\t4", ("a.png",), None),
    ],
)
def test_labels_of_a_results_table(
    read: Read, header: str, row: str, image: tuple[str, ...], category: str | None
) -> None:
    (found,) = read("imagej_results", f"{header}\n{row}\n", "Results.csv")
    assert isinstance(found, PointRecord)
    assert ((found.image, *found.also), found.category) == (image, category)
    assert (found.x, found.y) == (3.5, 4.5)


def test_slices_without_names(read: Read) -> None:
    text = " ,Label,X,Y,Slice\n1,v.tif:1,3,4,1\n2,v.tif:2,5,6,2\n"
    assert {r.problem.reason for r in read("imagej_results", text)} == {"unknown_image"}
    found = read("imagej_results", text, "r.csv", Options(None, "{video}/{slice}.png"))
    assert places(found) == [("v/1.png", 3.5, 4.5), ("v/2.png", 5.5, 6.5)]


def test_areas_and_faulty_rows_of_a_results_table(read: Read) -> None:
    text = " ,Label,Area,X,Y\n1,a.png,36,8.25,9.5\n2,a.png,0,3,4\n3,a.png,0,NaN,4\n4,a.png\n"
    found = read("imagej_results", text)
    assert places(found) == [("a.png", 3.5, 4.5)]
    assert sorted(r.problem.reason for r in found if r.problem) == ["bad_point", "bad_record", "not_a_point"]


@pytest.mark.parametrize(
    "text",
    ["image,Label,X,Y\na.png,bolt,3,4\n", ",Label,X,Y\n0,bolt,3,4\n", "Label,X,Y\nbolt,3,4\n", "x,y\n1,2\n"],
)
def test_other_tables_with_a_column_label_are_no_results_tables(tmp_path: Any, text: str) -> None:
    """Those of pandas, for example, where `label` is the class."""
    path = tmp_path / "clicks.csv"
    path.write_text(text)
    assert importer_for(PointFile(path)).name == "csv"


def markers(*kinds: tuple[str, list[tuple[Any, Any, int]]], image: str = "a.png", named: bool = True) -> str:
    """As WriteXML of the plugin writes it."""
    body = ""
    for number, (name, points) in enumerate(kinds, 1):
        body += f"     <Marker_Type>\r\n         <Type>{number}</Type>\r\n"
        body += f"         <Name>{name}</Name>\r\n" if named else ""
        for x, y, z in points:
            body += (
                f"         <Marker>\r\n             <MarkerX>{x}</MarkerX>\r\n             <MarkerY>{y}</MarkerY>\r\n"
                f"             <MarkerZ>{z}</MarkerZ>\r\n         </Marker>\r\n"
            )
        body += "     </Marker_Type>\r\n"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\r\n<CellCounter_Marker_File>\r\n <Image_Properties>\r\n'
        f"     <Image_Filename>{image}</Image_Filename>\r\n     <X_Calibration>1.0</X_Calibration>\r\n"
        f" </Image_Properties>\r\n <Marker_Data>\r\n     <Current_Type>0</Current_Type>\r\n{body}"
        " </Marker_Data>\r\n</CellCounter_Marker_File>\r\n"
    )


def test_markers_of_cell_counter(read: Read) -> None:
    text = markers(("bolt", [(3, 4, 1), (5, 6, 1)]), ("Type 2", [(7, 8, 1)]), ("Type 3", []))
    found = read("cell_counter", text, "CellCounter_a.xml")
    assert places(found) == [("a.png", 3.5, 4.5), ("a.png", 5.5, 6.5), ("a.png", 7.5, 8.5)]
    assert [r.category for r in found] == ["bolt", "bolt", "Type 2"]
    assert [r.choices for r in found] == [()] * 3
    found = read("cell_counter", markers(("", [(3, 4, 1)]), ("", []), named=False))
    assert [(r.category, r.choices) for r in found] == [("Type 1", ("Type 1",))]


def test_markers_on_slices_and_faulty_ones(read: Read) -> None:
    text = markers(("Type 1", [(3, 4, 1), (5, 6, 3)]), image="v.tif")
    assert {r.problem.reason for r in read("cell_counter", text)} == {"unknown_image"}
    found = read("cell_counter", text, "x.xml", Options(None, "{video}-{slice:02d}"))
    assert places(found) == [("v-01", 3.5, 4.5), ("v-03", 5.5, 6.5)]
    found = read("cell_counter", markers(("Type 1", [("", 4, 1), ("1e999", 4, 1), (3.25, 4, 1)])))
    assert [r.problem.reason if r.problem else (r.x, r.y) for r in found] == ["bad_point"] * 2 + [(3.25, 4.0)]
