"""Points in QuPath's GeoJSON: features with a point or several, and their classification.

Coordinates are pixels from the image's outer corner. The file's name is the image's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data.points.record import Importer, Options, PointFile, PointRecord, Problem
from data.points.values import number, shown, text

EXPECTED = "GeoJSON: a FeatureCollection, or a list of Features"

Json = dict[str, Any]


def _features(document: Any) -> list[Any] | None:
    if isinstance(document, list):
        first = document[0] if document else None
        return document if isinstance(first, dict) and first.get("type") == "Feature" else None
    if not isinstance(document, dict):
        return None
    if document.get("type") == "Feature":
        return [document]
    features = document.get("features")
    return features if document.get("type") == "FeatureCollection" and isinstance(features, list) else None


def sniff(file: PointFile, _: Options) -> bool:
    """A FeatureCollection, a Feature, or a list that begins with one."""
    return _features(file.json) is not None


def read(file: PointFile, _: Options) -> Iterator[PointRecord]:
    """One record a point; features of other shapes are set aside.

    Raises:
        DataError: not JSON, or no features.
    """
    features = _features(file.json)
    if features is None:
        found = f"invalid JSON ({file.json_error})" if file.json_error else "no features"
        raise file.fault(found, EXPECTED, "export the objects again as GeoJSON")
    for n, feature in enumerate(features):
        own = text(feature.get("id")) if isinstance(feature, dict) else None
        place = f"feature {own}"[:200] if own else f"feature #{n}"
        like = PointRecord(file.name, place, file.stem, None, None, None)
        geometry = feature.get("geometry") if isinstance(feature, dict) else None
        if not isinstance(geometry, dict):
            problem = Problem("bad_record", shown(feature), "a Feature with a geometry")
            yield like._replace(problem=problem)
            continue
        yield from _points(_classified(like, feature.get("properties")), geometry, own)


def _classified(like: PointRecord, properties: Any) -> PointRecord:
    """The record with the classification; without one, the object's name may be a class."""
    if not isinstance(properties, dict):
        return like
    given = properties.get("classification")
    if isinstance(given, dict):
        names = given.get("names")  # of a derived class, which QuPath shows as `Tumor: Positive`
        given = ": ".join(map(str, names)) if isinstance(names, list) and names else given.get("name")
    if category := text(given):
        return like._replace(category=category)
    name = text(properties.get("name"))
    return like._replace(category=name, choices=(name,)) if name else like


def _points(like: PointRecord, geometry: Json, own: str | None) -> Iterator[PointRecord]:
    kind, places = geometry.get("type"), geometry.get("coordinates")
    if kind == "Point":
        places = [places]
    elif kind != "MultiPoint" or not isinstance(places, list):
        problem = Problem("not_a_point", f"a geometry {shown(kind)}", "a Point or a MultiPoint")
        yield like._replace(problem=problem)
        return
    for n, place in enumerate(places):
        record = like if kind == "Point" else like._replace(source_record=f"{like.source_record}, point {n}")
        x, y = map(number, place[:2]) if isinstance(place, list) and len(place) in (2, 3) else (None, None)
        if x is None or y is None:
            problem = Problem("bad_point", f"coordinates {shown(place)}", "[x, y] in pixels")
            yield record._replace(problem=problem)
        else:
            key = own if own and kind == "Point" else f"{own or like.category} {x},{y}"
            yield record._replace(x=x, y=y, key=key)


IMPORTER = Importer("geojson", sniff, read)
