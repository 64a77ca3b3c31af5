"""The share of pseudo masks that are right, with an interval, from the judged objects of a random sample."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tasks.review.audit import Sampled, changed

Z = 1.959964
"""Of the normal distribution, for an interval of 95%."""
WRONG = ("rejected", "drawn", "clicks", "class")


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's score interval of 95% for a share of `count` > 0 draws (Brown, Cai and DasGupta 2001, section 3.1).

    Args:
        share: 0 to 1.
        count: need not be whole.
    """
    middle = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def estimate(tally: Mapping[str, Any], present: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """The figures for metrics.json, in percent; null where nothing was judged.

    Overall, each class counts by its number of masks in the population, since the sample isn't drawn in proportion. The
    interval is Wilson's, for as many independent draws as would have the variance of this sample; shares of classes are
    shrunk a little for it ((k + 1) / (n + 2)), or a class without a fault would have no variance.

    Args:
        tally: of `tasks.review.audit.tally`.
        present: of `tasks.review.audit.present_masks`, the pseudo masks as they are now.

    Returns:
        precision, low, high (95%), judged, right, sampled; wrong by reason, disagreed, other_mask, population; by_class
        the first six; `changed`: sampled objects whose mask or class is another now, or that are gone.
    """
    rows = tally["objects"]
    verdicts = Counter(row["verdict"] for row in rows)
    by_class: dict[str, dict[str, Any]] = {}
    for name in tally["population"]:
        own = [row["verdict"] for row in rows if row["category"] == name]
        judged = [one for one in own if one == "right" or one in WRONG]
        by_class[name] = _share(judged.count("right"), len(judged)) | {"sampled": len(own)}
    right, judged_in_all = verdicts["right"], verdicts["right"] + sum(verdicts[one] for one in WRONG)
    found = {
        **_overall(by_class, tally["population"]),
        "judged": judged_in_all,
        "right": right,
        "sampled": len(rows),
    }
    found["wrong"] = {name: verdicts[name] for name in WRONG}
    found |= {name: verdicts[name] for name in ("disagreed", "other_mask")}
    found["population"] = sum(tally["population"].values())
    objects = [Sampled(*(row[name] for name in Sampled._fields)) for row in rows]
    found["changed"] = len(changed(objects, present))
    found["by_class"] = by_class
    return found


def _percent(value: float) -> float:
    return round(100 * value, 4)


def _share(right: int, judged: int) -> dict[str, Any]:
    if not judged:
        return {"precision": None, "low": None, "high": None, "judged": 0, "right": 0}
    low, high = wilson(right / judged, judged)
    share = {"precision": _percent(right / judged), "low": _percent(low), "high": _percent(high)}
    return share | {"judged": judged, "right": right}


def _overall(by_class: Mapping[str, Mapping[str, Any]], population: Mapping[str, int]) -> dict[str, Any]:
    """Of the classes that have a judged object."""
    used = {name: row for name, row in by_class.items() if row["judged"]}
    total = sum(population[name] for name in used)
    if not total:
        return {"precision": None, "low": None, "high": None}
    share = shrunk = variance = 0.0
    for name, row in used.items():
        weight = population[name] / total
        own = (row["right"] + 1) / (row["judged"] + 2)
        share += weight * row["right"] / row["judged"]
        shrunk += weight * own
        variance += weight**2 * own * (1 - own) / row["judged"]
    low, high = wilson(share, shrunk * (1 - shrunk) / variance)
    return {"precision": _percent(share), "low": _percent(low), "high": _percent(high)}
