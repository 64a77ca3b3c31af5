"""What commands do outside the pipeline: predict, evaluate, export, import."""
