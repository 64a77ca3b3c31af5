from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.common.errors import TaskError
from tasks.inbox.ledger import Arrival, Ledger, now

ONE = Arrival("june/a.csv", "0" * 64, "etag", "taken", "", 3, "s3://b/in", "2026-11-21T19:53:15.250+00:00")


def test_an_arrival_is_known_by_its_content_under_its_name(tmp_path: Path) -> None:
    path = Ledger(tmp_path).add(ONE)
    assert path.parent == tmp_path / "arrivals/2026-11" and path.name.startswith("20261121T195315Z-")
    ledger = Ledger(tmp_path)
    assert ledger.find("june/a.csv", sha256="0" * 64) == ONE == ledger.find("june/a.csv", etag="etag")
    assert ledger.find("b.csv", sha256="0" * 64) is None  # a file's name may say its image
    assert ledger.find("june/a.csv", sha256="1" * 64, etag="other") is None
    assert ledger.last_taken("june/a.csv") == ONE and ledger.last_taken("b.csv") is None


def test_the_last_decision_counts_whatever_clone_made_it(tmp_path: Path) -> None:
    """Two clones decide on the same file: two files in git, no conflict."""
    later = replace(ONE, state="rejected", reason="bad", when="2026-11-22T07:00:00.000+00:00")
    paths = [Ledger(tmp_path).add(one) for one in (later, ONE)]
    assert len(set(paths)) == 2
    found = Ledger(tmp_path).find("june/a.csv", sha256="0" * 64)
    assert found == later and str(found) == "june/a.csv: rejected: bad"


def test_torn_entries_are_all_told(tmp_path: Path) -> None:
    Ledger(tmp_path).add(ONE)
    (tmp_path / "arrivals/2026-11/1.json").write_text("<<<<<<< HEAD")
    (tmp_path / "arrivals/2026-11/2.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(
        TaskError, match=r"(?s)1\.json: found .*restore it with git.*2\.json: found .*missing"
    ):
        Ledger(tmp_path)


def test_moments_sort_as_texts() -> None:
    assert now() <= now() and now().endswith("+00:00")
