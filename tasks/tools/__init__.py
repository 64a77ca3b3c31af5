"""What commands do beside the pipeline: predict, evaluate, export, import."""
