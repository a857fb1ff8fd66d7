"""What pip is asked for, by package: the one place with such strings beside setup.cfg, to which a test holds them."""

from __future__ import annotations

import re

REQUIREMENTS = {  # package: (its extra in setup.cfg, the requirement there)
    "numpy": ("", "numpy>=1.26,<3"),
    "onnxruntime": ("cpu", "onnxruntime>=1.24"),
    "openvino": ("cpu", "openvino>=2026.1"),
    "onnxruntime-gpu": ("gpu", "onnxruntime-gpu[cuda,cudnn]>=1.31"),
    "tensorrt": ("tensorrt", "tensorrt>=8.6"),
    "tensorrt-lean": ("tensorrt-lean", "tensorrt-lean>=10"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx>=1.7"),
    "cuda-bindings": ("tensorrt", "cuda-bindings>=12.9"),
    "av": ("video", "av>=18,<19"),
    "vapoursynth": ("vapoursynth", "vapoursynth>=81"),
    "model_signing": ("signing", "model_signing>=1.1,<2"),
    "pyopenssl": ("signing", "pyopenssl>=25"),
    "ray": ("cluster", "ray==2.60.0"),
    "tritonclient": ("triton", "tritonclient[grpc,http]>=2.73"),
    "torch": ("export", "torch==2.13.0"),
    "safetensors": ("export", "safetensors>=0.5"),
    "onnx": ("export", "onnx>=1.19"),
    "onnxscript": ("export", "onnxscript>=0.5"),
    "scikit-image": ("export", "scikit-image>=0.25"),
}


def requirement(package: str) -> str:
    """What to ask pip for, such as "av>=18"."""
    return REQUIREMENTS[package][1]


def least_version(package: str) -> str:
    """The oldest that will do, such as "18"."""
    return re.split("[>=]=", requirement(package))[1].partition(",")[0]
