"""Processes of a run: one, or as many as `torchrun` started."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, distributed as dist, nn
from torch.nn.parallel import DistributedDataParallel

from seit.devices import choose_device
from seit.errors import UsageError
from seit.models import keeps_statistics
from seit.stream import Rank

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else "broadcast_buffers"  # the name in earlier releases of torch
)
_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: its index.
        world_size: number of processes.
        device: its device.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def part(self) -> Rank:
        """Part of each batch for this process."""
        return Rank(self.rank, self.world_size)

    @property
    def is_main(self) -> bool:
        """True on the rank that writes the run's files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks."""
        if self.world_size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def join(self, tensor: Tensor) -> Tensor:
        """Concatenate the tensors (n_r, …) of all ranks, by rank; n_r may differ."""
        if self.world_size == 1:
            return tensor
        counts = torch.zeros(self.world_size, dtype=torch.int64, device=tensor.device)
        counts[self.rank] = len(tensor)
        sizes = self.sum(counts).tolist()
        parts = [tensor.new_empty(size, *tensor.shape[1:]) for size in sizes]
        for rank, part in enumerate(parts):
            if rank == self.rank:
                part.copy_(tensor)
            dist.broadcast(part, rank)
        return torch.cat(parts)

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set on any rank."""
        return bool(self.sum(torch.tensor(int(flag), device=self.device)))

    @torch.no_grad()
    def adopt(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors in place with those of the main rank, of the same shapes."""
        if self.world_size > 1:
            for tensor in tensors:
                dense = tensor.detach().contiguous()
                dist.broadcast(dense, 0)
                tensor.copy_(dense)

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sums over all ranks; all ranks have gradients of the same."""
        if self.world_size == 1:
            return
        gradients = [one.grad for one in parameters if one.grad is not None]
        whole = torch.cat([one.reshape(-1) for one in gradients])
        dist.all_reduce(whole)
        sums = whole.split([one.numel() for one in gradients])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.copy_(total.view_as(gradient))

    @torch.no_grad()
    def average_statistics(self, model: nn.Module) -> None:
        """Replace the running statistics of batch norms by their means over all ranks.

        Norms that use the batch of their rank alone differ in them.
        """
        for norm in model.modules() if self.world_size > 1 else ():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and not keeps_statistics(norm):
                for own in (norm.running_mean, norm.running_var):
                    if own is not None:
                        own.copy_(self.sum(own) / self.world_size)

    def wait(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            self.sum(torch.zeros((), device=self.device))

    def share(self, model: nn.Module) -> nn.Module:
        """Return the model with its gradients averaged over the ranks.

        Batch norm uses the batch of all ranks on CUDA devices, and of its own rank elsewhere.
        """
        if self.world_size == 1:
            return model
        on_cuda = self.device.type == "cuda"
        # Norms with frozen statistics have nothing to synchronize.
        converts = on_cuda and not keeps_statistics(model)
        settings: dict[str, Any] = {_SYNC_BUFFERS: False}
        return DistributedDataParallel(
            convert_sync_batchnorm(model) if converts else model,  # with activations in norms
            device_ids=[self.device] if on_cuda else None,
            gradient_as_bucket_view=True,
            **settings,
        )


@contextmanager
def join_ranks(device: str) -> Iterator[Ranks]:
    """Join the other processes if `torchrun` started several.

    Args:
        device: device as in a config; on CUDA every rank of a machine takes one GPU.

    Raises:
        UsageError: the device is unavailable, or several ranks name one GPU.
    """
    if any(name not in os.environ for name in _VARIABLES) or int(os.environ["WORLD_SIZE"]) == 1:
        yield Ranks(0, 1, choose_device(device))
        return
    rank, world_size, local_rank = (int(os.environ[name]) for name in _VARIABLES)
    chosen = choose_device(device)
    if chosen.type == "cuda":
        if ":" in device:
            raise UsageError(
                f"run.device is {device!r}, one GPU, for {world_size} ranks; pass cuda, so that "
                "each rank takes its own"
            )
        if local_rank >= torch.cuda.device_count():
            raise UsageError(
                f"this machine has {torch.cuda.device_count()} GPUs and torchrun started a rank "
                f"number {local_rank} on it; lower --nproc-per-node"
            )
        chosen = torch.device("cuda", local_rank)
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield Ranks(rank, world_size, chosen)
    finally:
        dist.destroy_process_group()
