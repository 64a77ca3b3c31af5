"""Checks of `runtime.trackers`: their packages, and whether MLflow's server can be reached. Warnings, since a run goes
on without them."""

from __future__ import annotations

import importlib.util
import os
import urllib.error
import urllib.request

from data.errors import Fault
from tasks.common.config import Params
from tasks.common.tracking.backend import TRACKERS, cause, shown_address
from tasks.doctor.finding import Diagnosis

TIMEOUT_S = 3.0


def check_trackers(params: Params, diagnosis: Diagnosis) -> None:
    """Adds a warning for each tracker that can't be used now."""
    for n, tracker in enumerate(params.runtime.trackers):
        needs, key = TRACKERS[tracker.name], f"runtime.trackers.{n}"
        if needs.package is not None and importlib.util.find_spec(needs.package) is None:
            step = f"run `pip install 'points2model[{needs.extra}]'`, or remove it"
            found = f"{tracker.name}, but its package isn't installed"
            diagnosis.warn("trackers", Fault("params.yaml", key, found, f"the package {needs.package}", step))
        elif tracker.name == "mlflow":
            _check_server(f"{key}.to", tracker.to or os.environ.get("MLFLOW_TRACKING_URI"), diagnosis)


def _check_server(key: str, address: str | None, diagnosis: Diagnosis) -> None:
    if not address:
        step = "set one of them; until then runs go on without MLflow"
        expected = "an address there, or in the variable MLFLOW_TRACKING_URI"
        diagnosis.warn("trackers", Fault("params.yaml", key, "no address", expected, step))
        return
    if not address.startswith(("http://", "https://")):
        return  # a folder, a database, a profile of Databricks
    shown = shown_address(address)
    step = "start the server, or correct the address; until then runs go on without MLflow"
    try:
        with urllib.request.urlopen(f"{shown.rstrip('/')}/health", timeout=TIMEOUT_S):  # noqa: S310  (checked)
            return
    except urllib.error.HTTPError as error:
        if error.code < 500:
            return  # it is there; a proxy may need a login, or lack the path
        found = f"{shown}: HTTP {error.code}"
    except (OSError, ValueError) as error:
        found = f"{shown}: {cause(error)}"
    diagnosis.warn("trackers", Fault("params.yaml", key, found, "MLflow's server", step))
