"""The networks run as their layers are written: each convolution, then its norm, each map in its first layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from models import folding


@contextmanager
def unfolded() -> Iterator[None]:
    """Inside, no norm is folded into its convolution; see models/folding.py."""
    with patch.object(folding, "is_fixed", lambda _: False):
        yield
