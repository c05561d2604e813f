"""Tokenizers shipped with the package: weights and a card each, in the folder ``tokenizers``.

A card is YAML next to ``NAME.safetensors``, written by ``tools/make_tokenizer_card.py``:

    summary: one line
    kind: conv-vq
    fingerprint: sha256 of the tokenizer
    license: license of the weights
    image_size: 256
    grid: [32, 32]
    levels: 1
    codes: 1024
    codebook_dim: 16
    training: {data: [data sets], steps: …, seed: …}
    quality: {kodak: {images: 144, psnr_db: …}, …}
    speed: {images_per_second: …, threads: 1, processor: …}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seit.config import read_yaml
from seit.errors import DamagedError, UsageError
from seit.recipes import data_folder

_REQUIRED: Mapping[str, type] = {
    "summary": str,
    "kind": str,
    "fingerprint": str,
    "licence": str,
    "grid": list,
    "codes": int,
    "training": dict,
    "quality": dict,
}


@dataclass(frozen=True)
class ShippedTokenizer:
    """Tokenizer of the package.

    Attributes:
        name: its name.
        path: its file.
        card: its origin and measured quality.
    """

    name: str
    path: Path
    card: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """One line: description, codes and grid, and PSNR on the first measured data."""
        height, width = self.card["grid"]
        parts = [self.card["summary"], f"{self.card['codes']:,} codes", f"{height} × {width}"]
        for name, figures in self.card["quality"].items():
            if isinstance(figures, dict) and "psnr_db" in figures:
                shown = name.capitalize() if name.islower() else name
                parts.append(f"{figures['psnr_db']:.2f} dB on {shown}")
                break
        return ", ".join(parts)

    @property
    def fingerprint(self) -> str:
        """The sha256 of the tokenizer, 64 hexadecimal digits."""
        return str(self.card["fingerprint"])


def list_shipped() -> dict[str, ShippedTokenizer]:
    """Return the tokenizers of the package by name, in alphabetical order.

    Raises:
        DamagedError: a card is damaged.
    """
    cards = sorted(data_folder("tokenizers").glob("*.yaml"))
    weights = [path.with_suffix(".safetensors") for path in cards]
    return {
        path.stem: ShippedTokenizer(card.stem, path, _read_card(card))
        for card, path in zip(cards, weights, strict=True)
        if path.is_file()
    }


def find_shipped(fingerprint: str) -> ShippedTokenizer | None:
    """Return the tokenizer of the package with this fingerprint; None if there is none.

    Raises:
        DamagedError: a card is damaged.
    """
    return next((one for one in list_shipped().values() if one.fingerprint == fingerprint), None)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = read_yaml(path)
    except UsageError as error:
        raise DamagedError(f"a tokenizer's card is damaged: {error}") from error
    for key, kind in _REQUIRED.items():
        if not isinstance(card.get(key), kind):
            raise DamagedError(f"{path} has no {key}, or a wrong one; reinstall seit")
    if len(card["grid"]) != 2:
        raise DamagedError(f"{path} has no grid of two sides; reinstall seit")
    return card
