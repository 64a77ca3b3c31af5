"""The networks run as their layers are written: each convolution, then its norm, each map in its first layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from models.backbones import conv_norm


@contextmanager
def unfolded() -> Iterator[None]:
    """Inside, no norm is folded into its convolution; see models/backbones/conv_norm.py."""
    with patch.object(conv_norm, "is_fixed", lambda _: False):
        yield
