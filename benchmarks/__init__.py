"""Prints numbers and takes no decisions: latency, throughput, quality, memory."""

from runtime.machine import no_telemetry as _no_telemetry  # noqa: F401 - before ONNX Runtime is imported
