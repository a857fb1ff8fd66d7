"""A video through OpenCV and ONNX Runtime, as scripts on the web do it: read five frames, run, write five frames.

python benchmarks/peers/naive_video.py model.onnx blurry.mp4 sharp.mp4
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

WINDOW = 5  # frames


def open_script(model: Path) -> Callable[[Path, Path], int]:
    """(video in, video out) -> frames written; without sound. The session is opened once."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    def deblur(source: Path, output: Path) -> int:
        video = cv2.VideoCapture(str(source))
        width, height = int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
        writer = cv2.VideoWriter(str(output), cv2.VideoWriter_fourcc(*"mp4v"), video.get(cv2.CAP_PROP_FPS), (width, height))
        written, frames = 0, []
        while True:
            read, frame = video.read()
            if read:
                frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2YCrCb))
            if len(frames) == WINDOW or (frames and not read):
                missing = WINDOW - len(frames)
                luma = np.stack([frame[..., 0] for frame in frames + frames[-1:] * missing])[None].astype(np.float32) / 255
                padded = np.pad(luma, ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8)), mode="reflect")
                sharp = session.run(None, {"blurry": padded})[0][0, :, :height, :width]
                for frame, plane in zip(frames, np.clip(sharp * 255 + 0.5, 0, 255).astype(np.uint8)):
                    frame[..., 0] = plane
                    writer.write(cv2.cvtColor(frame, cv2.COLOR_YCrCb2BGR))
                    written += 1
                frames = []
            if not read:
                break
        writer.release()
        return written

    return deblur


if __name__ == "__main__":
    print(open_script(Path(sys.argv[1]))(Path(sys.argv[2]), Path(sys.argv[3])), "frames")
