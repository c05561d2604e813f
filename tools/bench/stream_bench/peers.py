"""Define the formats and loaders that seit is compared with; each imports lazily.

A peer writes the samples once in its own format, and opens them as a callable that starts an epoch
of batches: (tokens (b, L), labels (b,)). Its environment does not need seit.

Legend: b samples per batch, N samples, L tokens per sample.
"""

import gzip
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDED_CODES = 391
"""Usual number of codes of the official format, which supports at most 510."""
NUM_SHARDS = 20
SHUFFLE_BUFFER = 5000
CHUNK_ROWS = 4096

Batches = Iterable[tuple[Any, Any]]
Start = Callable[[], Batches]


@dataclass(frozen=True)
class Peer:
    """Another way to store and read tokens.

    Attributes:
        format: folder name, shared by all loaders of one format.
        write: converts the arrays in the work folder into a folder.
        open: (folder, batch size, workers) → start of an epoch; imports happen here.
        shuffle: how well it shuffles.
        packages: to install, the first with the reported version; empty: the project's own.
        workers: numbers to measure; the best counts.
        num_codes: number of codes that ids are folded to, if necessary.
    """

    format: str
    write: Callable[[Path, Path], None]
    open: Callable[[Path, int, int], Start]
    shuffle: str
    packages: tuple[str, ...] = ()
    workers: tuple[int, ...] = (0, 2)
    num_codes: int | None = None


def arrays(work: Path) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
    """Return the samples: uint16 (N, L), memory-mapped, and int64 (N,)."""
    return np.load(work / "tokens.npy", mmap_mode="r"), np.load(work / "labels.npy")


def as_int16(rows: npt.NDArray[np.uint16]) -> Any:
    """View ids as an int16 torch tensor, without a copy."""
    import torch

    return torch.from_numpy(rows.view(np.int16))


def stack(items: list[Any]) -> tuple[Any, Any]:
    """Collate pairs or mappings of ids uint16 (L,) and a label, faster than torch's collate."""
    import torch

    pairs = [tuple(item.values()) if isinstance(item, dict) else item for item in items]
    tokens = np.stack([np.asarray(tokens) for tokens, _ in pairs])
    return as_int16(tokens), torch.tensor([int(label) for _, label in pairs])


def data_loader(dataset: Any, workers: int, **settings: Any) -> Any:
    """Open a torch DataLoader over a dataset of tokens and labels."""
    from torch.utils.data import DataLoader

    return DataLoader(dataset, num_workers=workers, **settings)


def link_arrays(work: Path, folder: Path) -> None:
    """Write nothing: the arrays are the format."""
    for name in ("tokens.npy", "labels.npy"):
        os.link(work / name, folder / name)


def open_npy_batch(folder: Path, batch_size: int, workers: int) -> Start:
    """Gather each batch from a memory map."""
    import torch

    del workers
    tokens, labels = arrays(folder)
    rng = np.random.default_rng(0)
    labels_t = torch.from_numpy(labels)

    def start() -> Batches:
        order = rng.permutation(len(tokens))
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            yield as_int16(tokens[rows]), labels_t[torch.from_numpy(rows)]

    return start


class Rows:
    """Open a map-style dataset of a memory map."""

    def __init__(self, folder: Path) -> None:
        self.tokens, self.labels = arrays(folder)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return np.array(self.tokens[index]), int(self.labels[index])


def open_npy_item(folder: Path, batch_size: int, workers: int) -> Start:
    """Map-style dataset of a memory map, sample by sample."""
    loader = data_loader(
        Rows(folder), workers, batch_size=batch_size, shuffle=True, collate_fn=stack
    )
    return lambda: loader


def write_official(work: Path, folder: Path) -> None:
    """Write bytes in one gzip file; 255 escapes the remainder of a larger id."""
    tokens, labels = arrays(work)
    sizes = []
    with gzip.open(folder / "data.gz", "wb", compresslevel=6) as file:
        for first in range(0, len(tokens), CHUNK_ROWS):
            rows = np.asarray(tokens[first : first + CHUNK_ROWS]) % FOLDED_CODES
            pairs = np.stack([np.minimum(rows, 255), np.maximum(rows, 255) - 255], axis=-1)
            used = np.ones(pairs.shape, dtype=bool)
            used[..., 1] = rows >= 255
            file.write(pairs.astype(np.uint8)[used].tobytes())
            sizes.append(used.sum(axis=(1, 2)))
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(np.concatenate(sizes))]))
    np.save(folder / "labels.npy", labels)


class Escaped:
    """Dataset that holds the whole file in memory and loops over the bytes of a sample."""

    def __init__(self, folder: Path) -> None:
        with gzip.open(folder / "data.gz") as file:
            self.data = file.read()
        self.offsets = np.load(folder / "offsets.npy")
        self.labels = np.load(folder / "labels.npy")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        ids, base = [], 0
        for byte in self.data[self.offsets[index] : self.offsets[index + 1]]:
            if byte == 255 and not base:
                base = 255
            else:
                ids.append(base + byte)
                base = 0
        return np.array(ids, dtype=np.uint16), int(self.labels[index])


def open_official(folder: Path, batch_size: int, workers: int) -> Start:
    """Read as the training code of naver-ai/seit does, with a faster collate."""
    made: list[Any] = []

    def start() -> Batches:
        if not made:
            made.append(
                data_loader(
                    Escaped(folder), workers, batch_size=batch_size, shuffle=True, collate_fn=stack
                )
            )
        return made[0]

    return start


def write_webdataset(work: Path, folder: Path) -> None:
    """Write two members per sample: the ids as bytes, and the class."""
    import webdataset

    tokens, labels = arrays(work)
    per_shard = -(-len(tokens) // NUM_SHARDS)
    with webdataset.ShardWriter(
        str(folder / "%05d.tar"), maxcount=per_shard, maxsize=1 << 40, verbose=0
    ) as sink:
        for number, row in enumerate(tokens):
            label = str(labels[number])
            sink.write({"__key__": f"{number:08d}", "tokens": row.tobytes(), "cls": label.encode()})


def open_webdataset(folder: Path, batch_size: int, workers: int) -> Start:
    """Shuffle shards, then samples."""
    import webdataset

    urls = sorted(str(path) for path in folder.glob("*.tar"))

    def decode(sample: dict[str, Any]) -> tuple[Any, int]:
        return np.frombuffer(sample["tokens"], np.uint16), int(sample["cls"])

    dataset = (
        webdataset.WebDataset(urls, shardshuffle=NUM_SHARDS, empty_check=False, seed=0)
        .shuffle(SHUFFLE_BUFFER)
        .map(decode)
        .batched(batch_size, collation_fn=stack)
    )
    loader = data_loader(dataset, workers, batch_size=None)
    return lambda: loader


def _litdata_rows(place: tuple[str, int, int]) -> Any:
    import torch

    work, first, last = place
    tokens, labels = arrays(Path(work))
    for row in range(first, last):
        ids = torch.from_numpy(np.array(tokens[row]).view(np.int16))
        yield {"tokens": ids, "label": int(labels[row])}


def write_litdata(work: Path, folder: Path) -> None:
    """Write chunks of 64 MB."""
    import litdata

    total = len(arrays(work)[1])
    places = [
        (str(work), first, min(first + CHUNK_ROWS, total)) for first in range(0, total, CHUNK_ROWS)
    ]
    litdata.optimize(
        fn=_litdata_rows,
        inputs=places,
        output_dir=str(folder),
        chunk_bytes="64MB",
        num_workers=1,
        start_method="spawn",
    )


def open_litdata(folder: Path, batch_size: int, workers: int) -> Start:
    """Shuffle chunks, then samples within windows; decode in batches if that is faster."""
    import litdata

    dataset = litdata.StreamingDataset(
        str(folder), shuffle=True, drop_last=False, batch_decode=0 if workers else "auto"
    )
    loader = litdata.StreamingDataLoader(
        dataset, batch_size=batch_size, num_workers=workers, collate_fn=stack
    )
    return lambda: loader


def write_mosaicml(work: Path, folder: Path) -> None:
    """Write MDS shards of 64 MB."""
    from streaming import MDSWriter

    tokens, labels = arrays(work)
    columns = {"tokens": f"ndarray:uint16:{tokens.shape[1]}", "label": "int"}
    with MDSWriter(out=str(folder), columns=columns, size_limit="64mb") as sink:
        for row, label in zip(tokens, labels.tolist(), strict=True):
            sink.write({"tokens": np.array(row), "label": label})


def open_mosaicml(folder: Path, batch_size: int, workers: int) -> Start:
    """Shuffle with `py1e`, the default."""
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()

    def collate(items: list[dict[str, Any]]) -> tuple[Any, Any]:
        return stack([(item["tokens"], item["label"]) for item in items])

    made: list[Any] = []

    def start() -> Batches:
        if not made:
            dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=batch_size)
            made.append(data_loader(dataset, workers, batch_size=batch_size, collate_fn=collate))
        return made[0]

    return start


def write_datasets(work: Path, folder: Path) -> None:
    """Write an Arrow table with a fixed-size list."""
    import datasets
    import pyarrow

    tokens, labels = arrays(work)
    flat = pyarrow.array(np.asarray(tokens).reshape(-1))
    column = pyarrow.FixedSizeListArray.from_arrays(flat, tokens.shape[1])
    table = pyarrow.table({"tokens": column, "label": pyarrow.array(labels)})
    datasets.Dataset(table).save_to_disk(folder)


def open_datasets(folder: Path, batch_size: int, workers: int) -> Start:
    """Read rows in the batches of a random sampler."""
    import datasets
    from torch.utils.data import BatchSampler, RandomSampler

    rows = datasets.load_from_disk(folder).with_format("numpy", dtype=np.int16)
    sampler = BatchSampler(RandomSampler(rows), batch_size, drop_last=False)
    loader = data_loader(rows, workers, sampler=sampler, batch_size=None)

    def start() -> Batches:
        for batch in loader:
            yield batch["tokens"], batch["label"]

    return start


def write_ffcv(work: Path, folder: Path) -> None:
    """Write an FFCV file."""
    from ffcv.fields import IntField, NDArrayField
    from ffcv.writer import DatasetWriter

    shape = arrays(work)[0].shape[1:]
    fields = {"tokens": NDArrayField(np.dtype(np.int16), shape), "label": IntField()}
    rows = Int16Rows(work)
    DatasetWriter(str(folder / "tokens.beton"), fields, num_workers=1).from_indexed_dataset(rows)


class Int16Rows(Rows):
    """Return the ids in the form that ffcv expects."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return np.array(self.tokens[index]).view(np.int16), int(self.labels[index])


def open_ffcv(folder: Path, batch_size: int, workers: int, *, order: str = "QUASI_RANDOM") -> Start:
    """Shuffle pages, then their samples, or all samples; batches are in a ring buffer."""
    from ffcv.fields.decoders import IntDecoder, NDArrayDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import Squeeze, ToTensor

    made: list[Any] = []

    def start() -> Batches:
        if not made:
            made.append(
                Loader(
                    str(folder / "tokens.beton"),
                    batch_size=batch_size,
                    num_workers=workers,
                    order=getattr(OrderOption, order),
                    os_cache=order == "RANDOM",
                    drop_last=False,
                    pipelines={
                        "tokens": [NDArrayDecoder(), ToTensor()],
                        "label": [IntDecoder(), ToTensor(), Squeeze()],
                    },
                )
            )
        return made[0]

    return start


def open_ffcv_random(folder: Path, batch_size: int, workers: int) -> Start:
    """See :func:`open_ffcv`."""
    return open_ffcv(folder, batch_size, workers, order="RANDOM")


FULL = "all samples"
FFCV = ("ffcv", "numpy", "pillow", "pkgconfig", "setuptools", "torchvision")
PEERS: dict[str, Peer] = {
    "npy_batch": Peer("npy", link_arrays, open_npy_batch, FULL, workers=(0,)),
    "npy_item": Peer("npy", link_arrays, open_npy_item, FULL),
    "official": Peer("official", write_official, open_official, FULL, num_codes=FOLDED_CODES),
    "webdataset": Peer(
        "webdataset", write_webdataset, open_webdataset, f"shards, {SHUFFLE_BUFFER} samples"
    ),
    "litdata": Peer(
        "litdata", write_litdata, open_litdata, "chunks, windows of them", ("litdata",)
    ),
    "mosaicml": Peer("mosaicml", write_mosaicml, open_mosaicml, "py1e", ("mosaicml-streaming",)),
    "datasets": Peer("datasets", write_datasets, open_datasets, FULL, ("datasets",)),
    "ffcv_quasi": Peer("ffcv", write_ffcv, open_ffcv, "pages", FFCV, workers=(1, 2)),
    "ffcv_random": Peer("ffcv", write_ffcv, open_ffcv_random, FULL, FFCV, workers=(1, 2)),
}
