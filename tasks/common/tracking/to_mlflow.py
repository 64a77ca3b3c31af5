"""MLflow: one run of the pipeline is one run there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from data.images.content import sha256
from tasks.common.tracking.backend import Target, UnusableError
from tasks.common.tracking.journal import Event

RUN = "points2model.run"
VERSION = "points2model.version"
ALIAS = "promoted"
STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
LONGEST_VALUE = 500
"""Of a param; older servers accept no more."""
PARAMS_AT_ONCE = 100


class Tracker:
    """See `Backend`."""

    live = True

    def __init__(self, target: Target, state: dict[str, Any]) -> None:
        address = target.to or os.environ.get("MLFLOW_TRACKING_URI")
        if not address:
            raise UnusableError(
                "no address: set MLFLOW_TRACKING_URI, or `to` in runtime.trackers. The run goes on without it"
            )
        self.target, self.client = (
            target,
            MlflowClient(address, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI")),
        )
        if "id" not in state:
            state["id"] = self._run()
        self.id: str = state["id"]

    def _run(self) -> str:
        """The id there; the run is made, unless a process that was killed made it."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self.target.project
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found is not None else self.client.create_experiment(name)
        known = self.client.search_runs([experiment], f"tags.`{RUN}` = '{self.target.run}'", max_results=1)
        if known:
            return str(known[0].info.run_id)
        return str(
            self.client.create_run(
                experiment, tags={RUN: self.target.run}, run_name=self.target.name
            ).info.run_id
        )

    def send(self, events: Sequence[Event], before: Sequence[Event]) -> None:
        metrics: list[Metric] = []
        params: list[Param] = []
        tags: list[RunTag] = []
        for event in events:
            at = int(1000 * event.at)
            if event.kind == "curve":
                metrics += [
                    Metric(f"{event.name}/{key}", value, at, event.step)
                    for key, value in event.values.items()
                ]
            elif event.kind == "metrics":
                metrics += [Metric(key, value, at, 0) for key, value in event.values.items()]
            elif event.kind == "params":
                params += [Param(key, value[:LONGEST_VALUE]) for key, value in event.values.items()]
            elif event.kind == "tags":
                tags += [RunTag(key, value) for key, value in event.values.items()]
                if "git.commit" in event.values:
                    tags.append(RunTag("mlflow.source.git.commit", event.values["git.commit"]))
        for n in range(0, len(params), PARAMS_AT_ONCE):
            self.client.log_batch(self.id, params=params[n : n + PARAMS_AT_ONCE])
        for n in range(0, max(len(metrics), len(tags)), 900):
            self.client.log_batch(self.id, metrics=metrics[n : n + 900], tags=tags if n == 0 else [])
        for event in events:
            path = self.target.root / event.values.get("path", "")
            if event.kind == "file" and path.is_file() and sha256(path) == event.values["hash"]:
                self.client.log_artifact(self.id, str(path))  # else a later run has written it anew
            elif event.kind == "model" and self.target.registered_model is not None:
                self._register(self.target.registered_model, event)
        if states := [event.name for event in events if event.kind == "status"]:
            self.client.update_run(self.id, STATUS[states[-1]])

    def _register(self, name: str, event: Event) -> None:
        """A promoted version: registered if it isn't yet, and marked as the promoted one."""
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = self.client.search_model_versions(f"name = '{name}'")
        known = [one for one in versions if one.tags.get(VERSION) == event.name and one.run_id == self.id]
        if not known:
            folder = self.target.root / event.values["path"]
            if not folder.is_dir():  # another one was promoted since
                return
            self.client.log_artifacts(self.id, str(folder), "student")
            source = f"{self.client.get_run(self.id).info.artifact_uri}/student"
            tags = {VERSION: event.name, "dvc.student": event.values["hash"]}
            known = [self.client.create_model_version(name, source, self.id, tags=tags)]
        self.client.set_registered_model_alias(name, ALIAS, known[0].version)

    def close(self) -> None:
        """Nothing is buffered."""
