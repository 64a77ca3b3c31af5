"""What is wrong or doubtful before a run: params, data, machine."""
