"""Small pictures and folders of them."""

import io

import numpy as np
from PIL import Image


def picture(number, side=40):
    """A smooth picture of ``side`` pixels and up to four more rows."""
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize((side, side + number % 5), Image.Resampling.BICUBIC)


def encoded(image, form="PNG", **options):
    """The bytes of a picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(number, side=40):
    return encoded(picture(number, side))


def pictures(first, last):
    return {f"{'ab'[n % 2]}/{n}.png": png(n) for n in range(first, last)}
