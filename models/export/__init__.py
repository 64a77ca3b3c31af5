"""A network as an ONNX graph: what torch exports, and around it what this package does before and after it."""
