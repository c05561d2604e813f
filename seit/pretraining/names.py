"""Names of objectives, apart from their classes so that the command line starts without torch."""

from typing import Literal

ObjectiveName = Literal["mtm", "sit", "further"]
