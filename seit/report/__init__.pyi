from .bars import Bar as Bar, bar_chart as bar_chart
from .confusion import (
    Confused as Confused,
    confusion_matrix as confusion_matrix,
    worst_confused as worst_confused,
)
from .document import (
    Section as Section,
    page as page,
    stylesheet as stylesheet,
    write_page as write_page,
)
from .heatmap import task_matrix as task_matrix
from .intervals import (
    CONFIDENCE as CONFIDENCE,
    FEW_SAMPLES as FEW_SAMPLES,
    MANY_CLASSES as MANY_CLASSES,
    Interval as Interval,
    say_share as say_share,
    wilson_interval as wilson_interval,
)
from .lines import Series as Series, line_chart as line_chart
from .markdown import markdown_page as markdown_page, yaml_text as yaml_text
from .markup import element as element, text as text
from .notebook import summary_table as summary_table
from .pictures import (
    Captioned as Captioned,
    image_grid as image_grid,
    picture_file as picture_file,
)
from .scatter import (
    Family as Family,
    Mark as Mark,
    scatter_chart as scatter_chart,
    scatter_svg as scatter_svg,
)
from .similarity import similarity_map as similarity_map
from .tables import Figure as Figure, figures as figures, table as table
