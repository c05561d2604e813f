"""Loaders, resident and streamed, against WebDataset and a plain DataLoader."""

from pathlib import Path

from guard_bench.case import Case, Work
from stream_bench.measure import write_source
from stream_bench.ours import OURS
from stream_bench.peers import PEERS, Peer

SAMPLES, LENGTH, BATCH = 4096, 1024, 256


def opened(work: Path, peer: Peer) -> Work:
    """Write the samples in a loader's format; return an epoch of it."""
    if not (work / "tokens.npy").exists():
        write_source(work, SAMPLES, LENGTH)
    folder = work / peer.format
    if not folder.exists():
        folder.mkdir()
        peer.write(work, folder)
    start = peer.open(folder, BATCH, 0)

    def epoch() -> None:
        found = sum(len(labels) for _, labels in start())
        assert found == SAMPLES, f"{found} of {SAMPLES} samples were read"

    return Work(epoch)


def resident_loader(work: Path) -> Case:
    """An epoch from a resident split, against a plain DataLoader of a memory map."""
    ours, peer = opened(work, OURS["resident_global"]), opened(work, PEERS["npy_item"])
    return Case(ours, peer, rounds=9)


def streaming_packed(work: Path) -> Case:
    """An epoch streamed from a packed store, against WebDataset."""
    ours, peer = opened(work, OURS["streaming_packed"]), opened(work, PEERS["webdataset"])
    return Case(ours, peer, rounds=5)


def streaming_context(work: Path) -> Case:
    """An epoch streamed from a context-coded store, against WebDataset."""
    ours, peer = opened(work, OURS["streaming_context"]), opened(work, PEERS["webdataset"])
    return Case(ours, peer, rounds=5)
