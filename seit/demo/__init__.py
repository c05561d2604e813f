"""A rendered image corpus: photograph-like pictures of ten kinds of object, made by arithmetic.

Each picture shows one main object among clutter, on a textured floor and often before a wall, lit
by a lamp with soft shadows and taken by an imperfect camera. The shape of the main object tells its
class, and so does its material in three pictures of four, as gears are mostly gray and hearts
mostly red; light, pose, clutter, floor and wall are drawn alike for every class. Needs numpy and
Pillow only.

The floor plan, from the inside out: ``noise`` (texture), ``shapes`` (solids), ``materials``
(color and pattern), ``scene`` (what lies where), ``tracing`` (what each pixel sees), ``shading``
(light and camera), ``picture`` (one picture), ``corpus`` (a folder of them).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
