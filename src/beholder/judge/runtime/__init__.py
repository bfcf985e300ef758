"""What runs a judge's networks: PyTorch, ONNX Runtime or OpenVINO."""
