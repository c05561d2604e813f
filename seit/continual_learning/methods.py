"""Names of methods, separate from their classes so that the command line starts without torch."""

from typing import Literal

Method = Literal[
    "lae",
    "seq-ft",
    "joint",
    "frozen-head",
    "ncm",
    "simplecil",
    "ranpac",
    "er",
    "der++",
    "icarl",
    "gdumb",
]
