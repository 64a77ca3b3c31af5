"""The whole of params.yaml."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field

from models.config import PromptConfig, SOLOv2Config
from tasks.common.config.inputs import DemoConfig, IngestConfig, InputConfig, PointsConfig, ReviewConfig
from tasks.common.config.operation import OperateConfig, RuntimeConfig
from tasks.common.config.proposers import ProposersConfig
from tasks.common.config.results import EvaluateConfig, PromotionConfig, PseudoConfig, ReportConfig
from tasks.common.config.section import Parallel, Section, WholeNumber
from tasks.common.config.training import DetectorTrainConfig, RefinerConfig, StudentConfig, TeacherConfig


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[WholeNumber, Field(ge=0, le=2**31 - 1)]
    threads: Parallel
    """CPU threads of a step. Sums differ in their last bits with their number, so it isn't part of `runtime`."""
    demo: DemoConfig
    ingest: IngestConfig
    points: PointsConfig
    review: ReviewConfig
    input: InputConfig
    model: dict[str, Any]
    teacher: TeacherConfig
    prompt: PromptConfig
    """How clicks become masks of the teacher: the refiner's training masks and the pseudo labels."""
    proposers: ProposersConfig
    rounds: Annotated[WholeNumber, Field(ge=1, le=100)]
    """How often the weak images are labelled and a student is trained (tasks/train_rounds.py); 1 in the paper."""
    refiner: RefinerConfig
    pseudo: PseudoConfig
    student: StudentConfig
    evaluate: EvaluateConfig
    promotion: PromotionConfig
    report: ReportConfig
    runtime: RuntimeConfig
    operate: OperateConfig

    def detector(self, training: DetectorTrainConfig) -> SOLOv2Config:
        """The network of teacher or student: section `model` with the grids and ranges of its training."""
        whole = {**self.model, "grids": training.grids, "ranges": training.ranges}
        return SOLOv2Config.model_validate_json(as_json(whole))


def as_json(raw: Any) -> str:
    """Checked as JSON, lists of YAML are valid where the models have tuples."""
    return json.dumps(raw, default=str)
