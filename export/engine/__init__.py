"""From trtexec's flags to a TensorRT engine; needs neither onnx nor torch, and runs on Python 3.9."""
