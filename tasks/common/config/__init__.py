"""params.yaml as frozen, strict models: every key is required, an unknown one is an error that names the nearest.

The sections are the steps of the pipeline, and what several steps share: `seed`, `input`, `model`, `prompt`. dvc.yaml
lists which step depends on which section. A key is explained at its section: inputs.py, proposers.py, training.py,
results.py, operation.py.
"""

from tasks.common.config.inputs import IngestConfig, InputConfig, PointsConfig
from tasks.common.config.load import ParamsError, checked_section, load_params, model_input, parse_params
from tasks.common.config.network import NetworkConfig
from tasks.common.config.operation import (
    NOTIFY_BLOCK,
    InboxConfig,
    OperateConfig,
    RuntimeConfig,
    TrackerConfig,
    checked_notify,
)
from tasks.common.config.params import Params
from tasks.common.config.proposers import ProposersConfig, SamConfig
from tasks.common.config.results import EvaluateConfig, Evaluator, PromotionConfig, ReportConfig
from tasks.common.config.section import Section
from tasks.common.config.training import (
    ROUNDING,
    DetectorTrainConfig,
    RefinerConfig,
    StudentConfig,
    TrainConfig,
)

__all__ = [
    "NOTIFY_BLOCK",
    "ROUNDING",
    "DetectorTrainConfig",
    "EvaluateConfig",
    "Evaluator",
    "InboxConfig",
    "IngestConfig",
    "InputConfig",
    "NetworkConfig",
    "OperateConfig",
    "Params",
    "ParamsError",
    "PointsConfig",
    "PromotionConfig",
    "ProposersConfig",
    "RefinerConfig",
    "ReportConfig",
    "RuntimeConfig",
    "SamConfig",
    "Section",
    "StudentConfig",
    "TrackerConfig",
    "TrainConfig",
    "checked_notify",
    "checked_section",
    "load_params",
    "model_input",
    "parse_params",
]
