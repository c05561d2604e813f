from .analysis import analyze as analyze, neighbors as neighbors
from .browser import view as view
from .corpora import frontier as frontier, quickstart as quickstart, tokenize as tokenize
from .models import (
    PredictResult as PredictResult,
    PredictTable as PredictTable,
    embed as embed,
    evaluate as evaluate,
    export as export,
    footprint as footprint,
    predict as predict,
)
from .plans import plan_run as plan_run
from .runs import (
    TunedRun as TunedRun,
    TunedSpeechRun as TunedSpeechRun,
    compress as compress,
    continual as continual,
    pretrain as pretrain,
    sweep as sweep,
    train as train,
    tune as tune,
)
from .stores import (
    convert as convert,
    delete as delete,
    duplicates as duplicates,
    filter as filter,
    info as info,
    merge as merge,
    verify as verify,
)
