"""Measures activations and writes what it found as JSON: clips, streaming histograms, scales, ranges."""

from runtime.machine import no_telemetry as _no_telemetry  # noqa: F401 - before ONNX Runtime is imported
