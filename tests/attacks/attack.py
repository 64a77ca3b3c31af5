"""An attack on one surface of the product, and what must come of it.

Each ``test_SURFACE.py`` beside this file has a table ``ATTACKS`` and one test over it that calls ``check``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from data.errors import DataError
from tasks.common.errors import TaskError


class Attack(NamedTuple):
    """One row.

    Attributes:
        name: what is tried; the test's id.
        act: does it, given the surface's fixture, with the product's real parts. Raises the product's own error, or
            returns all that the product printed. What else must hold (nothing written, the old file unchanged) is
            asserted in here.
        shown: parts of the message that must be there: the file, what was found, the next step.
        hidden: parts that must not be there, such as a secret.
        refused: whether the product must raise its own error; else it must go on.
    """

    name: str
    act: Callable[[Any], str]
    shown: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    refused: bool = True


def check(attack: Attack, place: Any, errors: tuple[type[Exception], ...] = (DataError, TaskError)) -> None:
    """Runs a row. Any other exception than `errors` is a traceback that a user would see, and fails the test."""
    try:
        text, refused = attack.act(place), False
    except errors as error:
        text, refused = str(error), True
    assert refused == attack.refused, f"{'refused' if refused else 'went on'}: {text}"
    for part in attack.shown:
        assert part in text, f"{part!r} is missing in: {text}"
    for part in ("Traceback (most recent call last)", *attack.hidden):
        assert part not in text, text
