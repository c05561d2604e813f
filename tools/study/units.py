"""How well a linear classifier tells classes by which tokens occur, without their order.

    uv run python tools/study/units.py STORE… --json

Each clip is a histogram of its ids, without those of padding; the classifier is fitted on `train`
and evaluated on `val` of each store. Prints JSON: bytes per sample and top-1.
"""

import argparse
import json

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import seit
from seit.shards import Split
from seit.tokenizers import UnitTokenizer

_SCALE, _PENALTY, _STEPS = 10.0, 1e-3, 100


def histograms(split: Split) -> tuple[Tensor, Tensor]:
    """Return unit-length roots of counts, with a constant, float32 (n, K + 1), and labels (n,)."""
    store = split.store
    assert store is not None, "an opened one"
    ids = torch.from_numpy(split.tokens[:].astype(np.int64)).flatten(1)
    counts = torch.zeros(len(ids), store.card.tokenizer.codebook_size)
    counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=torch.float32))
    if store.card.tokenizer.name == UnitTokenizer.name:
        counts[:, -1] = 0
    roots = functional.normalize(counts.sqrt(), dim=1) * _SCALE
    return torch.cat([roots, torch.ones(len(roots), 1)], 1), torch.from_numpy(split.labels)


def fit(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the weights (K + 1, N) of a logistic regression with a ridge penalty."""
    weights = torch.zeros(features.shape[1], num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_STEPS)

    def loss() -> float:
        optimizer.zero_grad()
        value = functional.cross_entropy(features @ weights, labels)
        value = value + _PENALTY * weights.square().sum() / 2
        value.backward()
        return float(value.detach())

    optimizer.step(loss)
    return weights.detach()


def main() -> None:
    """Print the figures of the stores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", nargs="+")
    parser.add_argument("--json", action="store_true", help="the only output there is")
    rows = {}
    for path in parser.parse_args().stores:
        store, found = seit.open(path), seit.info(path)
        weights = fit(*histograms(store["train"]), len(store.classes))
        features, labels = histograms(store["val"])
        rows[path] = {
            "bytes_per_sample": found.bytes_per_sample,
            "payload_bytes_per_sample": found.payload_bytes_per_sample,
            "samples": len(labels),
            "top1": float(((features @ weights).argmax(1) == labels).double().mean()),
        }
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
