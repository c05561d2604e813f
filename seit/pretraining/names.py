"""Names of objectives, separate from their classes so that the CLI starts without torch."""

from typing import Literal

ObjectiveName = Literal["mtm", "sit", "further"]
