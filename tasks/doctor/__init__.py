"""Checks before a run: params, data, machine."""
