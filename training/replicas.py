"""A step's gradient from several threads, each with a share of the batch.

On a CPU that others use too, threads that meet once a step lose far less time than threads that meet inside every operation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from training.synthesis import Samples

Loss = Callable[[nn.Module, Samples], Tensor]  # network, samples -> a scalar, the mean over the samples


class Replicas:
    """`count` networks that share the weights of one and have gradients of their own."""

    def __init__(self, network: nn.Module, count: int) -> None:
        self.networks = [network, *(copy.deepcopy(network) for _ in range(count - 1))]
        for replica in self.networks[1:]:
            for values in (nn.Module.parameters, nn.Module.buffers):
                for mine, shared in zip(values(replica), values(network)):
                    mine.data = shared.data
        self._pool = ThreadPoolExecutor(count)
        if count > 1:
            torch.set_num_threads(1)

    def backward(self, samples: Samples, loss: Loss) -> float:
        """Leaves the gradient of the mean loss over `samples` in the first network, and returns the loss."""
        parts = [Samples(b, s) for b, s in zip(samples.blurry.chunk(len(self.networks)), samples.sharp.chunk(len(self.networks)))]
        shares = [len(part.blurry) / len(samples.blurry) for part in parts]
        jobs = [self._pool.submit(_backward, *job, loss) for job in zip(self.networks, parts, shares)]
        total = sum(job.result() for job in jobs)
        mine = list(self.networks[0].parameters())
        for replica in self.networks[1 : len(parts)]:
            torch._foreach_add_([p.grad for p in mine], [p.grad for p in replica.parameters()])
        return total

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()


def _backward(network: nn.Module, samples: Samples, share: float, loss: Loss) -> float:
    network.zero_grad(set_to_none=True)
    value = loss(network, samples) * share
    value.backward()
    return float(value.detach())
