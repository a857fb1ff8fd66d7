"""PyTorch on the CPU, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from benchmarks.peers import Call, PeerInput
from model import load_checkpoint


def open_eager(given: PeerInput) -> Call:
    """The network in float32."""
    return _call(load_checkpoint(given.weights).eval())


def open_channels_last(given: PeerInput) -> Call:
    """In float32 and channels-last layout."""
    return _call(load_checkpoint(given.weights).eval().to(memory_format=torch.channels_last), channels_last=True)


def open_bf16(given: PeerInput) -> Call:
    """Under bf16 autocast in channels-last layout.

    It rounds the weights anew in every call, and keeps the parity that weights and pictures in bf16 would lose.
    """
    network = load_checkpoint(given.weights).eval().to(memory_format=torch.channels_last)
    return _call(network, channels_last=True, bf16=True)


def open_compiled(given: PeerInput) -> Call:
    """`torch.compile` with its defaults."""
    return _compiled(given, channels_last=False, bf16=False)


def open_compiled_bf16(given: PeerInput) -> Call:
    """`torch.compile` under bf16 autocast in channels-last layout."""
    return _compiled(given, channels_last=True, bf16=True)


def _compiled(given: PeerInput, channels_last: bool, bf16: bool) -> Call:
    network = load_checkpoint(given.weights).eval()
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    call = _call(torch.compile(network), channels_last, bf16)
    call(torch.zeros(given.shape).numpy())  # compiles
    return call


def _call(network: Callable[[Tensor], Tensor], channels_last: bool = False, bf16: bool = False) -> Call:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    arithmetic = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()

    def call(window):  # noqa: ANN001, ANN202 # as Call says
        with torch.inference_mode(), arithmetic:
            return network(torch.from_numpy(window).contiguous(memory_format=layout)).float().contiguous().numpy()

    return call
