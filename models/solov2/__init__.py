"""SOLOv2: network, targets, losses."""
