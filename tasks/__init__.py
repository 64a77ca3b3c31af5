"""The steps of the pipeline: files in, files out, one step a module."""

from tasks.common import startup as startup
