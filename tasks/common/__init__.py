"""What all steps share: params, errors, device, processes, progress."""
