"""Key `network` of section `student`: another network than SOLOv2; docs/students.md."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

from models.queries.config import NetworkName
from tasks.common.config.section import HubModel, Name, Section


class NetworkConfig(Section):
    """A network of transformers.

    `weights`: where it starts: a folder, or the id of a model of the Hugging Face hub, OWNER/NAME; null: random ones.
    `revision`: of a hub model: a commit, tag or branch; null: what its cache has, else the newest.
    `config`: keys of its config.json with other values than in `weights`, or than the usual ones of transformers.
    """

    name: NetworkName
    weights: HubModel | None
    revision: Name | None
    config: dict[str, Any]

    @model_validator(mode="after")
    def _revision_of_weights(self) -> Self:
        if self.weights is None and self.revision is not None:
            raise ValueError(f"revision: found {self.revision} with weights: null; expected null")
        return self
