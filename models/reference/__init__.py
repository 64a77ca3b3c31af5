"""The reference's own ways and files: published weights, its postprocessing."""
