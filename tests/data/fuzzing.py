"""What tests that throw anything at a reader of files share: how often they try, and JSON of any kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

few_times = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100
)


def ten_thousand_times(test: Callable[..., None]) -> Any:
    """Marks a hypothesis test as one that `-m fuzz` runs with 10,000 examples."""
    test = settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=10_000)(test)
    return pytest.mark.fuzz(pytest.mark.timeout(3600)(test))


def any_json(number: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Small JSON values, nested to some depth, with such numbers."""
    return st.recursive(
        st.none() | st.booleans() | number | st.text(max_size=6),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
        max_leaves=8,
    )
