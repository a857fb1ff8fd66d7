"""Changes and readings of ONNX graphs; needs onnx, not torch."""
