"""From the PyTorch network to an ONNX file; the only room that imports torch."""
