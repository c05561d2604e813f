"""A smaller student that learns from the run."""

import copy
from dataclasses import replace

from torch import nn
from typing_extensions import override

from seit.compression.config import CompressConfig
from seit.compression.training import Compressing
from seit.errors import UsageError
from seit.models import StoredWeights
from seit.shards import Store
from seit.training import Ranks, Run


class Student(Compressing):
    """Smaller network, trained from scratch with the run as its teacher.

    Raises:
        UsageError: it is the run's own network.
    """

    starts_from_source = False

    def __init__(self, config: CompressConfig, store: Store, ranks: Ranks, source: Run) -> None:
        own, theirs = config.model, source.config.model
        if own == replace(theirs, drop_path=own.drop_path):
            raise UsageError(
                f"the student would be as large as {source.path}; choose a smaller one by "
                "--compression.student RECIPE, or by flags such as --model.embed_dim 64"
            )
        super().__init__(config, store, ranks, source)

    @override
    def kept_model(self, model: nn.Module) -> nn.Module:
        return model

    @override
    def stored(self, model: nn.Module) -> StoredWeights:
        return StoredWeights.of(copy.copy(model.state_dict()), {})
