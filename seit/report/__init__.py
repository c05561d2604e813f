"""Reports: a single self-contained HTML file with charts, pictures and tables.

A page needs no JavaScript, network or fonts: it opens from disk, follows the reader's light or dark
mode, fits a phone and prints. Every chart function returns ``Markup`` (an escaped HTML fragment);
``page`` combines fragments into a document and ``write_page`` saves it. Displayed names (classes,
folders, runs) are untrusted and escaped everywhere.

Widths in a chart are percentages of the chart; heights and text are in pixels. So a chart narrows
on a phone while its text keeps its size.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
