"""The promoted model in words."""

from __future__ import annotations

from pathlib import Path

from flows.registry.current import PromotedModel
from tasks.promotion.baseline import Trainings
from tests.tasks.promotion.test_registry import entry


def test_of_several_trainings_the_models_own_ap_is_shown() -> None:
    """Not the mean, by which it was judged."""
    single = entry("v3")
    assert PromotedModel(Path(), single).description().startswith("model: v3, the promoted one, AP 21.0 on ")
    found = Trainings(seeds=[0, 1], AP=[22.5, 19.5], classes={})
    several = single.model_copy(
        update={"comparison": single.comparison.model_copy(update={"trainings": found})}
    )
    assert PromotedModel(Path(), several).description().startswith("model: v3, the promoted one, AP 22.5 on ")
