"""Rows of a split that a query finds, in its order; the latest results are kept.

Legend: N samples of the split, n found.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from seit.analysis.browser.catalog import DAMAGED, Catalog, Rows
from seit.analysis.browser.query import Query
from seit.errors import UsageError

if TYPE_CHECKING:
    from seit.training import Predictions

_KEPT = 8
"""Results kept, 4 bytes a row."""


class Selection:
    """Finds rows for queries on one split.

    Args:
        catalog: columns of the split.
        predictions: what a run predicts for each sample; None without a run.
        judge: name of the run.

    Attributes:
        predicted: predicted class of each sample, int64 (N,), −1 if unknown; None without a run.
    """

    def __init__(
        self, catalog: Catalog, predictions: "Predictions | None" = None, *, judge: str = ""
    ) -> None:
        self.catalog = catalog
        self.judge = judge
        self.predictions = predictions
        self.predicted = None if predictions is None else predictions.predicted
        self._kept: OrderedDict[Query, Rows] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, query: Query) -> "Rows | range":
        """Return the rows that a query finds: int32 (n,), or a range for the whole split.

        Raises:
            UsageError: it needs a run, or bits that are not known.
        """
        if query.is_all:
            return range(len(self.catalog))
        key = query.found_by
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = self._find(key)
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def _find(self, query: Query) -> Rows:
        catalog = self.catalog
        mask = np.ones(len(catalog), dtype=bool)
        if query.label is not None:
            mask &= catalog.holds(query.label)
        if query.text:
            mask &= catalog.keys.find(query.text) | catalog.find_metadata(query.text)
        if query.predicted is not None:
            mask &= self._predicted() == query.predicted
        if query.wrong:
            mask &= self.wrong
        rows = self._order(query)
        return rows[mask[rows]]

    def _order(self, query: Query) -> Rows:
        everyone = np.arange(len(self.catalog), dtype=np.int32)
        if not query.sort:
            return everyone[::-1] if query.down else everyone
        if query.sort == "key":
            order = self.catalog.keys.order
            return order[::-1] if query.down else order
        values = self._values(query.sort)
        intact = np.flatnonzero(np.isfinite(values))  # damaged samples are in no order
        placed = np.argsort(-values[intact] if query.down else values[intact], kind="stable")
        return intact[placed].astype(np.int32)

    def _values(self, sort: str) -> npt.NDArray[np.floating]:
        if sort == "bits":
            return self.catalog.bits
        if sort == "class":
            labels = self.catalog.labels
            return np.where(labels == DAMAGED, np.nan, labels)
        return np.where(self.wrong, self._label_probabilities(), 2.0)

    def _label_probabilities(self) -> npt.NDArray[np.floating]:
        """Return the probability of each sample's own class; 0 if the run did not keep them."""
        found = None if self.predictions is None else self.predictions.likeliest
        if found is None:
            return np.zeros(len(self.catalog))
        return np.nan_to_num(found.of_labels, nan=1.0)

    def _predicted(self) -> npt.NDArray[np.int64]:
        if self.predicted is None:
            raise UsageError(
                "no run with predictions of this split is open; start `seit view RUN --store STORE`"
            )
        return self.predicted

    @cached_property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """Mistakes of the run, a mask: bool (N,), False for unlabeled samples.

        Raises:
            UsageError: there is no run.
        """
        predicted = self._predicted()
        assert self.predictions is not None
        labels = self.predictions.labels
        wrong: npt.NDArray[np.bool_] = (labels >= 0) & (predicted != labels)
        return wrong


def batches(rows: "Rows | range", size: int) -> Iterator["Rows | range"]:
    """Yield the rows in pieces."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
