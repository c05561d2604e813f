"""Initialization of pretraining from the weights of a finished run."""

import logging
from collections.abc import Collection

from torch import nn

from seit.errors import UsageError
from seit.models import is_of_head, load_weights
from seit.pretraining.encoder import ENCODER, HEADS_NAME, encoder_of
from seit.shards import Store
from seit.training import LoopConfig, Run, check_tokens, network_changes, plain_weights

_LOG = logging.getLogger(__name__)


def start_pretraining_from(
    model: nn.Module,
    run: Run,
    store: Store,
    config: LoopConfig,
    *,
    heads_from: Collection[str],
) -> bool:
    """Load the weights of ``run`` into a pretraining model of ``config``.

    Loads those of the encoder, and all others if the objective of the run is one of ``heads_from``.

    Returns:
        Whether it loaded the others.

    Raises:
        UsageError: the run has not finished, uses another tokenizer, or its weights belong to
            another model or to tuning modules.
    """
    check_tokens(run, store)
    if run.settings.data.pixels is not None:
        raise UsageError(f"{run.path} was trained on pixels; start from a run on tokens")
    encoder = encoder_of(model)
    weights = plain_weights(run)
    if run.kind.classifies:
        weights = {key: value for key, value in weights.items() if not is_of_head(encoder, key)}
    reason = network_changes(config, run)
    load_weights(encoder, weights, origin=str(run.path), reason=reason)
    if run.objective not in heads_from:
        _LOG.info("%s learned something else; initializing new heads", run.path)
        return False
    own = {key: value for key, value in model.state_dict().items() if key.startswith(ENCODER)}
    load_weights(model, own | run.load_tensors(HEADS_NAME), origin=f"{run.path / HEADS_NAME}")
    return True
