#!/bin/sh
# What only a machine with a GPU can tell. Each part is one command; FOLDER travels between the two machines.
#   benchmarks/gpu/run.sh prepare FOLDER [PYTHON]       any machine, with the development requirements
#   benchmarks/gpu/run.sh tensorrt FOLDER PYTHON        GPU; PYTHON has tensorrt (8.6 to 11), cuda-bindings, numpy, pytest
#   benchmarks/gpu/run.sh onnxruntime FOLDER [PYTHON]   GPU; onnxruntime-gpu, cuda-bindings, and torch for its rows
#   benchmarks/gpu/run.sh rtx FOLDER [PYTHON]           GPU; tensorrt-rtx, cuda-bindings: does an engine for 8.0 load here?
set -eu
part=${1:?prepare, tensorrt, onnxruntime or rtx}
folder=${2:?a folder}
python=${3:-python}
cd "$(dirname "$0")/../.."
clip=export/clips/kodak_blurry.mp4

case $part in
prepare)
    mkdir -p "$folder"
    "$python" export/to_onnx.py --output "$folder/model.onnx"
    "$python" -m calibration.collect_ranges "$clip" --onnx "$folder/model.onnx" --output "$folder/ranges.json"
    "$python" export/to_fp16.py --onnx "$folder/model.onnx" --ranges "$folder/ranges.json" --output "$folder/fp16.onnx"
    for rest in fp32 fp16; do
        "$python" export/to_qdq.py --onnx "$folder/model.onnx" --ranges "$folder/ranges.json" --rest $rest --output "$folder/int8_$rest.onnx"
    done
    for name in model int8_fp32; do "$python" export/to_trt8.py --onnx "$folder/$name.onnx" --output "$folder/$name.trt8.onnx"; done
    "$python" export/to_engine.py --onnx="$folder/model.onnx" --saveEngine="$folder/sm80.engine" --runtime rtx --computeCapabilities=8.0 \
        --noTF32 --for 720p
    "$python" benchmarks/gpu/reference_windows.py "$clip" --output "$folder/windows.npz"
    "$python" - "$folder" <<'TINY'
import sys
from pathlib import Path

import numpy as np
import torch

from export.export_options import ExportOptions
from export.network.exporter import export_onnx
from model import DeblurNetwork, NetworkConfig, save_checkpoint
from runtime import Engine

folder = Path(sys.argv[1])
network = DeblurNetwork(NetworkConfig(channel_divisor=8))
torch.nn.init.normal_(network.r2.weight, std=0.01)
save_checkpoint(network, folder / "tiny.safetensors")
tiny = export_onnx(ExportOptions(checkpoint=folder / "tiny.safetensors", output=folder / "tiny.onnx", opset=17)).path
with Engine(tiny, "onnxruntime", "fp32") as engine:  # the window of tests/test_tensorrt_runner.py
    np.save(folder / "tiny_sharp.npy", engine.run(np.random.default_rng(0).random((1, 1, 5, 64, 96), np.float32)[0]))
TINY
    ;;
tensorrt)
    # without cuBLAS and cuDNN, which the wheel of 8.6 wants and does not bring; later versions have none of these sources
    build() {
        name=$1 model=$2
        shift 2
        "$python" export/to_engine.py --runtime tensorrt --tacticSources=-CUBLAS,-CUBLAS_LT,-CUDNN --for 720p "$@" \
            --saveEngine="$folder/$name.engine" --onnx="$folder/$model.onnx"
    }
    if [ "$("$python" -c 'import tensorrt; print(tensorrt.__version__.split(".")[0])')" -lt 10 ]; then # chooses types by itself
        build fp32 model.trt8 --noTF32
        build tf32 model.trt8
        build fp16 model.trt8 --fp16
        build int8 int8_fp32.trt8 --int8 --fp16
    else # takes those of the file
        build fp32 model --noTF32
        build tf32 model
        build fp16 fp16
        build int8 int8_fp16
    fi
    VIDEODEBLUR_TINY_MODEL="$folder/tiny.onnx" VIDEODEBLUR_TINY_RESULT="$folder/tiny_sharp.npy" \
        "$python" -m pytest -q -p no:cacheprovider -m gpu tests/test_tensorrt_runner.py
    "$python" benchmarks/gpu/engines.py "$folder"/fp32.engine "$folder"/tf32.engine "$folder"/fp16.engine "$folder"/int8.engine \
        --windows "$folder/windows.npz" --json "$folder/engines.json" --layers "$folder/layers"
    ;;
onnxruntime)
    for precision in fp32 tf32; do
        "$python" benchmarks/gpu/onnxruntime_cuda.py "$folder/model.onnx" --precision $precision --windows "$folder/windows.npz"
    done
    ;;
rtx)
    "$python" -c "from runtime import Engine; print(Engine('$folder/sm80.engine'))"
    ;;
*)
    echo "no part $part" >&2
    exit 2
    ;;
esac
