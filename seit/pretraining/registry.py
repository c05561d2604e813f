"""Registry of objectives."""

from seit.pretraining.base import Pretraining
from seit.pretraining.names import ObjectiveName
from seit.pretraining.objectives import FurtherMaskedTokens, MaskedTokens, SiameseTokens

OBJECTIVES: dict[ObjectiveName, type[Pretraining]] = {
    "mtm": MaskedTokens,
    "sit": SiameseTokens,
    "further": FurtherMaskedTokens,
}
