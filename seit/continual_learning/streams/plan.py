"""Construction of the stream that a config describes."""

import numpy as np

from seit.continual_learning.config import ContinualConfig
from seit.continual_learning.streams.blurry import blurry
from seit.continual_learning.streams.domains import read_domains
from seit.continual_learning.streams.orders import class_order
from seit.continual_learning.streams.tasks import (
    Stream,
    check_labels,
    class_incremental,
    domain_incremental,
    online,
)
from seit.errors import UsageError
from seit.shards import Store
from seit.training import has_labels, refuse_label_sets, training_rows


def make_stream(config: ContinualConfig, store: Store) -> Stream:
    """Return the stream over the splits of a store that ``config`` describes.

    Raises:
        UsageError: the store lacks labels or a split, or the settings do not fit its classes.
    """
    data, wanted = config.data, config.stream
    refuse_label_sets(
        store,
        (data.train_split, data.val_split),
        verb="a stream of tasks",
        instead="seit train and seit tune learn such stores",
    )
    for name in (data.train_split, data.val_split):
        if name not in store or not store.classes or not has_labels(store[name]):
            raise UsageError(
                f"{store.folder} has no labeled samples in a split {name!r}; a continual run "
                "learns classes from one split and is evaluated on another: name them with "
                "--data.train_split and --data.val_split"
            )
    train, evaluated = store[data.train_split], store[data.val_split]
    num_classes, seed = len(store.classes), config.run.seed
    labels = train.labels.copy()
    rows = training_rows(train, config)
    if rows is not None:
        chosen = np.zeros(len(labels), dtype=bool)
        chosen[rows] = True
        labels[~chosen] = -1  # unlabeled: belongs to no task
    check_labels(labels, evaluated.labels, num_classes=num_classes, classes=store.classes)
    if wanted.kind == "domain":
        assert wanted.domains is not None, "a domain stream has been checked to name them"
        return domain_incremental(
            labels,
            evaluated.labels,
            read_domains(wanted.domains, train.keys, split=data.train_split),
            read_domains(wanted.domains, evaluated.keys, split=data.val_split),
            num_classes=num_classes,
        )
    order = class_order(wanted.order, num_classes, classes=store.classes)
    if wanted.kind == "blurry":
        return blurry(
            labels,
            evaluated.labels,
            num_classes=num_classes,
            num_tasks=wanted.tasks,
            disjoint_share=wanted.disjoint_share,
            blur_share=wanted.blur_share,
            order=order,
            seed=seed,
        )
    stream = class_incremental(
        labels,
        evaluated.labels,
        num_classes=num_classes,
        increment=wanted.increment,
        initial=wanted.initial,
        order=order,
    )
    return online(stream, seed=seed) if wanted.kind == "online" else stream
