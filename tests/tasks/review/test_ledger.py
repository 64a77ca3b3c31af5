"""The ledger: what is quickly known of objects with one verdict is what their decisions say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data.decisions.record import Decision
from data.decisions.words import contradictions
from data.masks.rle import encode
from tasks.review.ledger import Ledger
from tasks.review.objects import Objects
from tests.data.fuzzing import few_times

SIDE = 128


def _pixels(side: int) -> str:
    mask = np.zeros((side, side), np.bool_)
    mask[2:5, 2:5] = True
    return encode(mask).decode()


PIXELS = {side: _pixels(side) for side in (SIDE, 9)}
OBJECTS: dict[Path, Objects] = {}


@few_times
@given(data=st.data())
def test_flags_are_those_of_the_standing(made_project: Path, tmp_path: Path, data: st.DataObject) -> None:
    objects = OBJECTS.setdefault(made_project, Objects(made_project / "workspace"))
    name = objects.weak.images["file_name"][int(objects.image[0])].as_py()
    good, other = ({"size": [side, side], "counts": PIXELS[side]} for side in (SIDE, 9))
    said: list[dict[str, Any]] = [
        {"action": "reject"}, {"action": "accept", "mask": good}, {"action": "accept", "mask": other},
        {"action": "mask", "mask": good, "source": "brush"}, {"action": "class", "category": "apple"},
        {"action": "clicks", "point": [3.0, 4.0], "further": []}, {"action": "undo"},
    ]  # fmt: skip
    folder = tmp_path / f"decisions-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    ledger = Ledger(folder, objects)
    lines: dict[str, list[dict[str, Any]]] = {"anna": [], "bob": []}
    for n in range(data.draw(st.integers(1, 8))):
        who = data.draw(st.sampled_from(["anna", "bob"]))
        row = {"id": f"d{n}", "time": f"2026-06-01T09:30:{n:02d}+00:00", "reviewer": who}
        row |= data.draw(st.sampled_from(said))
        if row["action"] == "undo":
            if not lines[who]:
                continue
            row["undoes"] = data.draw(st.sampled_from([one["id"] for one in lines[who]]))
        else:
            row |= {"image": data.draw(st.sampled_from([name, name, "gone.jpg"])), "object": objects.ids[0]}
        lines[who].append(row)
        with (folder / f"{who}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        if data.draw(st.booleans()):
            ledger.refresh()
    ledger.refresh()
    flags = ledger.decided[0], ledger.contradicted[0], ledger.by[0]
    mine = ledger.of_reviewer("anna").tolist()
    latest = ledger.latest()[0]
    standing = ledger.standing(objects.ids[0])
    assert flags == (standing.is_decided, bool(standing.contradicted), len(standing.words))
    assert standing.contradicted == contradictions(standing.words)
    assert mine == ([0] if "anna" in standing.words else [])
    parts: list[Decision] = [one for word in standing.words.values() for one in word.parts()]
    assert latest == max((one.moment.timestamp() for one in parts), default=float("-inf"))
    assert not ledger.decided[1:].any()
    again = Ledger(folder, objects)
    assert (again.decided[0], again.contradicted[0], again.by[0]) == flags
