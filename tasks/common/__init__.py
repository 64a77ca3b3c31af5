"""Used by all steps: params, errors, device, processes, progress."""
