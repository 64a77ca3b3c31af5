from __future__ import annotations

from collections import Counter

import pytest

from tasks.intake.val_share import choose


def images(count: int, *classes: int) -> dict[str, set[int]]:
    return {f"{n}.png": set(classes) for n in range(count)}


@pytest.mark.parametrize(("share", "least", "most"), [(0.1, 60, 140), (0.25, 200, 300), (0.9, 860, 940)])
def test_the_share_is_met(share: float, least: int, most: int) -> None:
    assert least < len(choose(images(1000, 1), share)) < most


def test_an_image_stays_on_its_side_when_others_are_added() -> None:
    few, many = images(100, 1, 2), images(5000, 1, 2)
    assert choose(few, 0.2) == {name for name in choose(many, 0.2) if name in few}
    assert choose(dict(reversed(few.items())), 0.2) == choose(few, 0.2)


def test_a_larger_share_keeps_the_images_of_a_smaller_one() -> None:
    assert choose(images(200, 1), 0.1) < choose(images(200, 1), 0.3)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
@pytest.mark.parametrize("shift", range(5))
def test_each_class_of_two_images_is_on_both_sides(share: float, shift: int) -> None:
    """Classes 0 to 9 on 2 to 11 images of their own, class 10 on all of these, class 11 on one, class 12 on none."""
    classes_of = {f"{shift} {c} {n}": {c, 10} for c in range(10) for n in range(c + 2)}
    classes_of |= {f"{shift} one": {11}, f"{shift} none": set()}
    val = choose(classes_of, share)
    sides = Counter((c, name in val) for name, own in classes_of.items() for c in own)
    assert all(sides[c, side] for c in range(11) for side in (True, False))
    # No more is moved than is needed.
    if share == 0.001:
        assert len(val - {f"{shift} one", f"{shift} none"}) == 10


def test_where_a_class_cant_be_on_both_sides_the_others_still_are() -> None:
    """Class 1 is on a and b, class 2 on b and c: b's move to either side would take the other class away."""
    classes_of = {"a": {1}, "b": {1, 2}, "c": {2}}
    for share in (0.01, 0.5, 0.99):
        val = choose(classes_of, share)
        assert val in ({"b"}, {"a", "c"})


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_both_sides_get_an_image_with_an_object(share: float) -> None:
    """Each class is on one image, and many images have none."""
    classes_of: dict[str, set[int]] = {f"{n}": set() for n in range(50)} | {"a": {1}, "b": {2}, "c": {3}}
    val = choose(classes_of, share)
    assert 0 < len(val & {"a", "b", "c"}) < 3


def test_a_single_image_is_on_one_side() -> None:
    assert choose({"a": {1}}, 0.5) in (set(), {"a"})
    assert choose({}, 0.5) == set()
