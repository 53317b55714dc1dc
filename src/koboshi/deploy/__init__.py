"""An exported controller at work: NumPy, ONNX Runtime and MuJoCo, and no torch."""
