"""Reports: one self-contained HTML file with charts, pictures and tables, and nothing to fetch.

A page needs no JavaScript, no network and no fonts of its own: it opens from disk, follows the
reader's light or dark mode, fits a phone and prints. Every chart function returns ``Markup`` (an
already escaped HTML fragment); ``page`` puts fragments into a document and ``write_page`` saves
it. Names shown (classes, folders, runs) are untrusted and escaped everywhere.

Pixels and percentages: widths in a chart are percentages of the chart, heights and text are
pixels. So a chart narrows on a phone while its text keeps its size.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
