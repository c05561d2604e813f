"""Small pictures and folders of them."""

import io

import numpy as np
from PIL import Image


def png(number, side=40):
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((side, side + number % 5), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def plant(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def pictures(first, last):
    return {f"{'ab'[n % 2]}/{n}.png": png(n) for n in range(first, last)}
