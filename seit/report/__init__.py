"""Reports: one self-contained HTML file with charts, pictures and tables, and nothing to fetch.

A page needs no JavaScript, no network and no fonts of its own: it opens from disk, follows the
reader's light or dark mode, fits a phone and prints. Every chart function returns ``Markup`` (an
already escaped HTML fragment); ``page`` puts fragments into a document and ``write_page`` saves
it. Names shown (classes, folders, runs) are untrusted and escaped everywhere.

Pixels and percentages: widths in a chart are percentages of the chart, heights and text are
pixels. So a chart narrows on a phone while its text keeps its size.
"""

from seit.report.bars import Bar, bar_chart
from seit.report.confusion import Confused, confusion_matrix, worst_confused
from seit.report.heatmap import task_matrix
from seit.report.lines import Series, line_chart
from seit.report.page import Section, page, write_page
from seit.report.pictures import Captioned, image_grid
from seit.report.tables import Figure, figures, table

__all__ = [
    "Bar",
    "Captioned",
    "Confused",
    "Figure",
    "Section",
    "Series",
    "bar_chart",
    "confusion_matrix",
    "figures",
    "image_grid",
    "line_chart",
    "page",
    "table",
    "task_matrix",
    "worst_confused",
    "write_page",
]
