from .brain.config import BrainConfig as BrainConfig
from .brain.recordings import read_recordings as read_recordings
from .brain.result import BrainResult as BrainResult
from .brain.score import score_brain as score_brain
from .brain.volumes import Space as Space, read_space as read_space
from .browser.open import view_place as view_place
from .browser.publish import (
    THUMBNAILS as THUMBNAILS,
    ViewExport as ViewExport,
    export_view as export_view,
)
from .browser.server import HOST as HOST, PORT as PORT, View as View
from .duplicates.search import Duplicates as Duplicates, find_duplicates as find_duplicates
from .frontier.config import FrontierConfig as FrontierConfig
from .frontier.plan import FrontierPlan as FrontierPlan, plan_frontier as plan_frontier
from .frontier.points import DEFAULT_POINTS as DEFAULT_POINTS
from .frontier.run import FrontierResult as FrontierResult, run_frontier as run_frontier
from .journal import (
    BRAIN_NAME as BRAIN_NAME,
    CKA_NAME as CKA_NAME,
    LAYERS_NAME as LAYERS_NAME,
    UNFINISHED_NAME as UNFINISHED_NAME,
)
from .layers.alignments import read_alignments as read_alignments
from .layers.analyze import (
    SPANS as SPANS,
    analyze_layers as analyze_layers,
    codes_of as codes_of,
    other_subject as other_subject,
)
from .layers.config import AnalyzeConfig as AnalyzeConfig
from .layers.groups import groups_of as groups_of
from .layers.maps import CkaResult as CkaResult, compare_layers as compare_layers
from .layers.result import AnalyzeResult as AnalyzeResult
from .layers.scores import SCORES as SCORES
from .neighbors.classify import (
    NeighborsResult as NeighborsResult,
    find_neighbors as find_neighbors,
)
from .neighbors.index import Nearest as Nearest, NeighborIndex as NeighborIndex
from .quickstart import QuickstartResult as QuickstartResult, run_quickstart as run_quickstart
from .runs.compare import compare_contenders as compare_contenders
from .runs.contenders import open_contenders as open_contenders
from .runs.find import list_runs as list_runs
from .runs.page import (
    class_rows as class_rows,
    header as header,
    result_rows as result_rows,
    say_verdicts as say_verdicts,
    setting_rows as setting_rows,
    write_comparison as write_comparison,
)
from .subjects.open import open_subject as open_subject
