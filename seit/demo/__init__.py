"""A rendered image corpus: photograph-like pictures of ten kinds of object, made by arithmetic.

Each picture shows one main object among clutter, on a textured floor and often in front of a wall,
lit by a lamp with soft shadows and taken by an imperfect camera. The shape of the main object
determines its class, and so does its material in three pictures of four, e.g. gears are mostly gray
and hearts mostly red; light, pose, clutter, floor and wall are drawn alike for every class.
Requires only numpy and Pillow.

Modules, from the inside out: ``noise`` (texture), ``shapes`` (solids), ``materials`` (color and
pattern), ``scene`` (layout), ``rays`` (visible surfaces and shadows), ``photograph`` (light and
camera), ``picture`` (one picture), ``corpus`` (a folder of pictures).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
