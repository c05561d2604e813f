"""Training: one loop, its configuration, run folders, evaluation and prediction.

The module itself can be called: ``seit.train(config, store, out=…)`` is ``seit.train.train``.
"""

import sys
from types import ModuleType
from typing import Any

from seit.train.classify import TrainResult, train
from seit.train.config import TrainConfig
from seit.train.evaluate import Evaluation, RunEvaluation, evaluate_run
from seit.train.predict import Prediction, predict
from seit.train.run import Run
from seit.train.seeds import SeedsResult, train_seeds

__all__ = [
    "Evaluation",
    "Prediction",
    "Run",
    "RunEvaluation",
    "SeedsResult",
    "TrainConfig",
    "TrainResult",
    "evaluate_run",
    "predict",
    "train",
    "train_seeds",
]


class _CallableModule(ModuleType):
    """Lets ``seit.train`` be the room and the function, whichever was imported first."""

    def __call__(self, *args: Any, **kwargs: Any) -> TrainResult:
        return train(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
