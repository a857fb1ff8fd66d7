"""Requests that no honest client sends, made from a seed: through tritonclient, and as bytes over a bare connection."""

import json
import random

import numpy as np

KINDS = {np.float32: ("f32", "FP32"), np.uint8: ("u8", "UINT8"), np.uint16: ("u16", "UINT16")}
MAX_PIXELS = 64 * 64  # of the repository that is tested


def malformed(seed):
    """("tensors", {name: (shape, Triton's type, bytes)}, parameters), or ("bytes", headers, body) for HTTP."""
    chance = random.Random(seed)
    makers = (wrong_frames, wrong_rank, empty, too_large, no_luma, wrong_type, short, two, none, unknown, parameters, text, header)
    return chance.choice(makers)(chance)


def tensor(window, name="blurry_{}"):
    ending, kind = KINDS[window.dtype.type]
    return {name.format(ending): (list(window.shape), kind, window.tobytes())}


def window(chance, *shape):
    return np.random.default_rng(chance.randrange(1000)).random(shape or (1, 5, 16, 24)).astype(np.float32)


def codes(chance, *shape):
    return (255 * window(chance, *shape)).astype(chance.choice([np.uint8, np.uint16]))


def wrong_frames(chance):
    return "tensors", tensor(codes(chance, 1, chance.choice([1, 4, 6, 50]), 16, 24)), {}


def wrong_rank(chance):
    return "tensors", tensor(codes(chance, *chance.choice([(16, 24), (5, 16, 24), (1, 5, 16, 24, 1), (1,)]))), {}


def empty(chance):
    return "tensors", tensor(codes(chance, *chance.choice([(1, 5, 0, 24), (1, 5, 16, 0), (0, 5, 16, 24), (1, 0, 16, 24)]))), {}


def too_large(chance):
    height = chance.choice([65, 128, 1])
    return "tensors", tensor(codes(chance, 1, 5, height, MAX_PIXELS // height + 1)), {}


def no_luma(chance):
    bad = window(chance)
    bad[0, chance.randrange(5), chance.randrange(16), chance.randrange(24)] = chance.choice([np.nan, np.inf, -np.inf, 255.0, -3])
    return "tensors", tensor(bad), {}


def wrong_type(chance):
    name, (shape, _, data) = next(iter(tensor(codes(chance)).items()))
    return "tensors", {name: (shape, chance.choice(["FP64", "INT8", "BOOL", "FP16", "INT64", "BYTES"]), data)}, {}


def short(chance):
    name, (shape, kind, data) = next(iter(tensor(codes(chance)).items()))
    return "tensors", {name: (shape, kind, data[: chance.randrange(len(data))])}, {}


def two(chance):
    return "tensors", {**tensor(window(chance)), **tensor(codes(chance))}, {}


def none(chance):
    return "tensors", {}, {}


def unknown(chance):
    return "tensors", tensor(codes(chance), chance.choice(["blurry", "sharp_u8", "", "../x", "x" * 5000])), {}


def parameters(chance):
    wrong = [
        {"bits": 3},
        {"bits": 400},
        {"bits": "ten"},
        {"color_range": "wide"},
        {"color_range": 1},
        {"bits": -8},
        {"describe": 7},
    ]
    return "tensors", tensor(codes(chance)), chance.choice(wrong)


def text(chance):
    body = bytes(chance.randrange(256) for _ in range(chance.randrange(2000)))
    return "bytes", {"Content-Type": "application/json"}, body


def header(chance):
    """A declared shape, or length of JSON, that the body does not hold."""
    shape = chance.choice([[1, 5, 2**40, 2**40], [1, 5, -1, 16], [2**62, 5, 2, 2], [1, 5, 16, 24]])
    size = chance.choice([0, 10, 2**31, 2**63])
    described = {"name": "blurry_u8", "shape": shape, "datatype": "UINT8", "parameters": {"binary_data_size": size}}
    body = json.dumps({"inputs": [described]}).encode()
    length = chance.choice([len(body), 0, len(body) + 999, -1])
    return "bytes", {"Inference-Header-Content-Length": str(length)}, body + bytes(chance.randrange(100))
