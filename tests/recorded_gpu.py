"""A GPU that only keeps time: streams, events and a host clock that move by recorded milliseconds. What is measured is real."""

import itertools
import threading
from types import SimpleNamespace

import numpy as np

from runtime.backends.inference_loop import Work
from runtime.backends.layer_times import LayerTimes

LAYERS = {"c1/Conv + c1/Relu": 0.25, "c2/Conv": 0.5}  # milliseconds


class RecordedGpu:
    """An `inference_loop.Device` whose lanes share one compute unit; lanes' times are in milliseconds."""

    def __init__(self, compute=(3.0,), lanes=1, copy_in=2.0, copy_out=1.0, enqueue=0.1, shape=(1, 5, 8, 8), times=None):
        self.host = 1000.0  # of a clock that began long ago
        self.start = self.busy = 0.0
        self.slept, self.entered, self.notes, self.closed = [], set(), [], 0
        self.compute, self.enqueue, self.copies = itertools.cycle(compute), enqueue, (copy_in, copy_out)
        self.times = times
        self.lanes = [RecordedLane(self, shape) for _ in range(lanes)]

    def enter(self):
        self.entered.add(threading.get_ident())

    def begin(self, hold):
        self.start = self.busy = self.host + hold
        self.began = self.host
        for lane in self.lanes:
            lane.streams = dict.fromkeys(Work, self.start)

    def now(self):
        return self.host - self.began

    def sleep(self, milliseconds):
        self.slept.append(milliseconds)
        self.host += milliseconds

    def close(self):
        self.closed += 1


class RecordedLane:
    """An `inference_loop.Lane`; the output is the input."""

    def __init__(self, gpu, shape):
        self.gpu, self.marks, self.said = gpu, {}, []
        self.streams = dict.fromkeys(Work, 0.0)
        self.input, self.output = (np.zeros(shape, np.float32) for _ in range(2))
        self.on_device = [None, None]

    def copy_in(self):
        self._queue(Work.COPY_IN, self.gpu.copies[0])
        self.on_device[0] = self.input.copy()

    def compute(self):
        gpu = self.gpu
        gpu.host += gpu.enqueue
        start = max(self.streams[Work.COMPUTE], gpu.host, gpu.busy)
        self.streams[Work.COMPUTE] = gpu.busy = start + next(gpu.compute)
        self.on_device[1] = self.on_device[0]
        for name, milliseconds in LAYERS.items() if isinstance(gpu.times, LayerTimes) else ():
            gpu.times.add(name, milliseconds)

    def copy_out(self):
        self._queue(Work.COPY_OUT, self.gpu.copies[1])
        self.output[...] = self.on_device[1]

    def mark(self, work, end, turn):
        self.marks[work, end, turn] = max(self.streams[work], self.gpu.host)

    def order(self, work, turn, following):
        self.streams[following] = max(self.streams[following], self.marks[work, True, turn])

    def wait(self, work, turn):
        self.gpu.host = max(self.gpu.host, self.marks[work, True, turn])

    def at(self, work, end, turn):
        return self.marks[work, end, turn] - self.gpu.start

    def _queue(self, work, milliseconds):
        self.streams[work] = max(self.streams[work], self.gpu.host) + milliseconds


class RecordedEngine:
    """A `MeasuredEngine` on recorded GPUs."""

    def __init__(self, how, **recorded):
        self.gpu = SimpleNamespace(name="a GPU", index=0, compute_capability=(9, 0), memory=80 << 30)
        self.how, self.recorded, self.aux_streams, self.devices = how, recorded, 0, []

    def device(self, cuda_graph, times=None):
        lanes = 1 if times else self.how.streams
        self.devices.append(RecordedGpu(lanes=lanes, shape=self.how.shape, times=times, **self.recorded))
        return self.devices[-1]

    def layers(self, device, form):
        return '{"Layers": ["c1/Conv"]}' if form == "JSON" else "c1/Conv"

    def close(self):
        pass
