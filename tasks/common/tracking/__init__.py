"""Shows runs in MLflow, TensorBoard, W&B and DVC's plots (`runtime.trackers`, docs/trackers.md).

A stage only appends lines to a journal in workspace/runs/tracking. For each tracker it starts a process that sends them
(sender.py), at low priority: a tracker that is slow, unreachable or broken can neither delay nor end the stage. What
couldn't be sent is sent by a later stage. No result depends on any of this.
"""

from tasks.common.tracking.tracked import log, promoted, stage

__all__ = ["log", "promoted", "stage"]
