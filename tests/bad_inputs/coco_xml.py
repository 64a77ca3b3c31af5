"""Bad point files in COCO style and in CVAT XML."""

from __future__ import annotations

import json
from typing import Any

from tests.bad_inputs.bad import Bad


def coco(*rows: Any, **changes: Any) -> bytes:
    head = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 5, "name": "bolt"}],
    }
    return json.dumps(head | {"annotations": list(rows)} | changes).encode()


def _row(n: int = 1, **changes: Any) -> dict[str, Any]:
    return {"id": n, "image_id": 1, "category_id": 5, "point": [3.5, 4.5]} | changes


def _cvat(body: str, head: str = '<?xml version="1.0"?>') -> bytes:
    return f'{head}<annotations><image id="0" name="a.png" width="40" height="24">{body}</image></annotations>'.encode()


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><annotations><image name='&i;'/></annotations>"
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
FAR = '<!DOCTYPE annotations SYSTEM "http://127.0.0.1:9/evil.dtd">'

COCO_CASES = (
    Bad("truncated JSON", "a.json", coco(_row())[:-20], refused="broken JSON"),
    Bad(
        "JSON nested 100,000 deep", "a.json", b'{"annotations":' + b"[" * 100_000, refused="nested too deeply"
    ),
    Bad(
        "a number of 5,000 digits",
        "a.json",
        b'{"annotations": [' + b"9" * 5000 + b"]}",
        refused="broken JSON",
    ),
    Bad(
        "another document", "a.json", b'{"name": "package", "version": "1"}', refused="keys 'name', 'version'"
    ),
    Bad("an empty list", "a.json", b"[]", refused="a JSON list of 0"),
    Bad("a lone value", "a.json", b"17", refused="text that begins with '17'"),
    Bad("UTF-16 without a mark", "a.json", json.dumps([]).encode("utf-16-le"), refused="binary data"),
    Bad("annotations of another type", "a.json", coco(annotations={"1": 2}), refused="keys 'images'"),
    Bad("annotations of mixed types", "a.json", coco(None, 3, "x", [], _row()), None, ("bad_record",) * 4, 1),
    Bad(
        "NaN and infinity",
        "a.json",
        coco(_row(1, point=[float("nan"), 1]), _row(2, point=[1, float("inf")])),
        None,
        ("bad_point",) * 2,
    ),
    Bad(
        "numbers that no float holds",
        "a.json",
        coco(_row(1, point=[10**400, 1]), _row(2, point=[1e308, 1])),
        None,
        ("bad_point", "outside_image"),
    ),
    Bad(
        "coordinates as texts, booleans, null, lists",
        "a.json",
        coco(*(_row(n, point=[v, 1]) for n, v in enumerate(["3", True, None, [3]]))),
        None,
        ("bad_point",) * 4,
    ),
    Bad("a point of three", "a.json", coco(_row(point=[1, 2, 3])), None, ("bad_point",)),
    Bad(
        "a point nested 500 deep",
        "a.json",
        coco(_row(point=[json.loads("[" * 500 + "]" * 500), 1])),
        None,
        ("bad_point",),
    ),
    Bad(
        "several visible keypoints",
        "a.json",
        coco(_row(point=None, keypoints=[1, 1, 2, 2, 2, 2])),
        None,
        ("bad_point",),
    ),
    Bad("no fields", "a.json", coco({}), None, ("no_point",)),
    Bad(
        "ids of other types",
        "a.json",
        coco(
            _row(1, image_id=[1]),
            _row(2, category_id={"a": 1}),
            _row(3, image_id=True),
            _row(4, image_id=10**30),
        ),
        None,
        ("unknown_image", "unknown_category", "unknown_image", "unknown_image"),
    ),
    Bad(
        "paths that lead out",
        "a.json",
        coco(
            *(_row(n, image_id=p) for n, p in enumerate(["../../etc/passwd", "/etc/passwd", "C:\\a\\x.png"]))
        ),
        None,
        ("unknown_image",) * 3,
    ),
    Bad(
        "lone surrogates and null characters in names",
        "a.json",
        coco(_row(1, image_id="\ud800.png"), _row(2, category_id="bo\0lt"), _row(3, annotator="\udfff")),
        None,
        ("unknown_image", "unknown_category"),
        1,
    ),
    Bad(
        "one name for two records",
        "a.json",
        coco(_row(1), _row(1, point=[9, 9])),
        None,
        ("duplicate_record",),
        1,
    ),
    Bad(
        "annotated at another size",
        "a.json",
        coco(_row(), images=[{"id": 1, "file_name": "a.png", "width": 80, "height": 48}]),
        None,
        ("other_size",),
    ),
    Bad(
        "sizes that are none",
        "a.json",
        coco(_row(), images=[{"id": 1, "file_name": "a.png", "width": 1e300, "height": -4}]),
        None,
        ("other_size",),
    ),
)

XML_CASES = (
    Bad("truncated XML", "a.xml", _cvat('<points label="bolt" points="1,2"/>')[:-30], refused="broken XML"),
    Bad("an entity bomb", "a.xml", BOMB.encode(), refused="document type or entity, which is refused"),
    Bad(
        "an external entity",
        "a.xml",
        _cvat('<points points="1,2" label="&x;"/>', OUTSIDE),
        refused="is refused",
    ),
    Bad("an external document type", "a.xml", _cvat("", FAR), refused="is refused"),
    Bad("another root", "a.xml", b"<svg><points/></svg>", refused="XML <svg>"),
    Bad("a config of Label Studio", "config.xml", b"<View><Image name='i'/></View>", refused="move it out"),
    Bad(
        "an unknown encoding",
        "a.xml",
        _cvat("", '<?xml version="1.0" encoding="klingon"?>'),
        refused="broken XML",
    ),
    Bad(
        "bytes that are not its encoding",
        "a.xml",
        _cvat('<points label="bolt" points="1,2"/>').replace(b"bolt", b"\xff\xfe"),
        refused="not UTF-8 text",
    ),
    Bad(
        "null bytes",
        "a.xml",
        _cvat('<points label="bolt" points="1,2"/>').replace(b"bolt", b"bo\0t"),
        refused="binary data",
    ),
    Bad("nested 100,000 deep", "a.xml", b"<annotations>" + b"<image>" * 100_000, refused="broken XML"),
    Bad(
        "nested 50,000 deep, and whole",
        "a.xml",
        _cvat("<a>" * 50_000 + "</a>" * 50_000 + '<points label="bolt"/>'),
        None,
        ("bad_point",),
    ),
    Bad(
        "coordinates that are none",
        "a.xml",
        _cvat(
            "".join(
                f'<points label="bolt" points="{p}"/>'
                for p in ("", "1", "1,2,3", "a,b", "nan,1", "1e999,2", "1,2;;3,4")
            )
        ),
        None,
        ("bad_point",) * 7,
        2,
    ),
    Bad(
        "points outside",
        "a.xml",
        _cvat('<points label="bolt" points="-1,2;40,2;1,24;1e30,0"/>'),
        None,
        ("outside_image",) * 4,
    ),
    Bad(
        "no label, an unknown one, one nearly right",
        "a.xml",
        _cvat('<points points="1,2"/><points label="gear" points="1,3"/><points label="bold" points="1,4"/>'),
        None,
        ("unknown_category",) * 3,
    ),
    Bad(
        "an image without a name",
        "a.xml",
        _cvat('<points label="bolt" points="1,2"/>').replace(b'name="a.png"', b""),
        None,
        ("unknown_image",),
    ),
    Bad(
        "frames that are none",
        "a.xml",
        b"<annotations><track label='bolt'><points frame='x' points='1,2'/><points points='1,2'/>"
        b"<points frame='99999999999999' points='1,2'/></track></annotations>",
        None,
        ("unknown_image",) * 3,
    ),
)
