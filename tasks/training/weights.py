"""The published weights that a training starts from: a file outside the workspace, known by its content."""

from __future__ import annotations

from data.images.read import sha256
from models.backbones.build import weights_file
from models.backbones.config import BackboneConfig


def weights_sha256(backbone: BackboneConfig) -> str | None:
    """The hash of the file that `weights` names (for `imagenet` the one fetched or installed); None without one.

    params.yaml, and so DVC, knows the file's name only. The hash is part of the resume key and of manifest.json.

    Raises:
        OSError: the file isn't there, or can't be fetched.
    """
    return None if backbone.weights is None else sha256(weights_file(backbone.name, backbone.weights))
