from .answers import (
    Likeliest as Likeliest,
    Predictions as Predictions,
    confusion_record as confusion_record,
    read_confusion as read_confusion,
    read_predictions as read_predictions,
    write_predictions as write_predictions,
)
from .checkpoint import (
    Saved as Saved,
    TrainState as TrainState,
    list_checkpoints as list_checkpoints,
    moments as moments,
    restore_moments as restore_moments,
)
from .classify import (
    CLASSIFIER_FILES as CLASSIFIER_FILES,
    Classifying as Classifying,
    TrainResult as TrainResult,
    teacher_of as teacher_of,
    train as train,
)
from .config import (
    OF_THE_MACHINE as OF_THE_MACHINE,
    EmaConfig as EmaConfig,
    LoopConfig as LoopConfig,
    ModelConfig as ModelConfig,
    OptimConfig as OptimConfig,
    RunConfig as RunConfig,
    ScheduleConfig as ScheduleConfig,
    TrainConfig as TrainConfig,
    require_setting as require_setting,
    require_shares as require_shares,
)
from .data_identity import Inputs as Inputs
from .defaults import fit_recipe as fit_recipe
from .evaluate import (
    Evaluation as Evaluation,
    RunEvaluation as RunEvaluation,
    evaluate_run as evaluate_run,
)
from .failure import describe_figures as describe_figures, describe_ruin as describe_ruin
from .features.base import FeatureFile as FeatureFile, Features as Features
from .features.embed import (
    HEAD as HEAD,
    EmbedResult as EmbedResult,
    embed_split as embed_split,
    load_backbone as load_backbone,
    random_backbone as random_backbone,
)
from .features.formats import (
    open_features as open_features,
    read_features as read_features,
)
from .feeds import (
    EVAL_BATCH as EVAL_BATCH,
    SECOND_VIEW as SECOND_VIEW,
    Feed as Feed,
    TrainBatch as TrainBatch,
    evaluated_split as evaluated_split,
    has_labels as has_labels,
    make_augment as make_augment,
    make_unlabelled_feed as make_unlabelled_feed,
    training_rows as training_rows,
)
from .flops import Flops as Flops, count_flops as count_flops
from .footprint import (
    FOOTPRINT as FOOTPRINT,
    FULL_BITS as FULL_BITS,
    Footprint as Footprint,
    LayerFootprint as LayerFootprint,
    bytes_by_dtype as bytes_by_dtype,
    footprint_of as footprint_of,
    footprint_record as footprint_record,
    footprint_sections as footprint_sections,
    layers_of as layers_of,
    operations as operations,
    read_footprint as read_footprint,
    summed as summed,
)
from .initialize import (
    check_tokens as check_tokens,
    network_changes as network_changes,
    plain_weights as plain_weights,
    starting_from as starting_from,
)
from .kinds import (
    KINDS as KINDS,
    Kind as Kind,
    kind_named as kind_named,
    kind_of as kind_of,
    kind_with as kind_with,
)
from .label_sets import (
    THRESHOLD as THRESHOLD,
    average_precision as average_precision,
    refuse_label_sets as refuse_label_sets,
)
from .launch import (
    enter_run as enter_run,
    finished_figures as finished_figures,
    has_checkpoint as has_checkpoint,
    has_to_end as has_to_end,
    run_objective as run_objective,
    withdrawn_if_refused as withdrawn_if_refused,
)
from .loop import Loop as Loop
from .networks import (
    check_one_network as check_one_network,
    check_plain as check_plain,
    load_classifier as load_classifier,
    load_run_model as load_run_model,
    modules_of as modules_of,
    pixel_stem as pixel_stem,
)
from .objective import LoopFigures as LoopFigures, Objective as Objective
from .optimizer import (
    count_in_steps as count_in_steps,
    learning_rate as learning_rate,
    make_optimizer as make_optimizer,
    num_steps as num_steps,
    set_learning_rate as set_learning_rate,
)
from .origin import (
    learned_labels as learned_labels,
    origin_sections as origin_sections,
    read_origins as read_origins,
)
from .precision import (
    choose_attention as choose_attention,
    make_autocast as make_autocast,
    make_scaler as make_scaler,
)
from .prediction import (
    Prediction as Prediction,
    Predictor as Predictor,
    evaluation_augment as evaluation_augment,
    list_files as list_files,
    predict as predict,
)
from .pretrained import find_pretrained as find_pretrained
from .ranks import Ranks as Ranks, join_ranks as join_ranks
from .records import (
    FINISHED as FINISHED,
    MAX_RECORD_BYTES as MAX_RECORD_BYTES,
)
from .report import (
    LEARNING as LEARNING,
    THROUGHPUT as THROUGHPUT,
    Curve as Curve,
    Metrics as Metrics,
    confusion_sections as confusion_sections,
    curves as curves,
    group_curves as group_curves,
    write_report as write_report,
    write_run_report as write_run_report,
)
from .run import (
    CONFIG_NAME as CONFIG_NAME,
    FAILURE_NAME as FAILURE_NAME,
    FRONT_END_NAME as FRONT_END_NAME,
    REPORT_NAME as REPORT_NAME,
    RUN_NAME as RUN_NAME,
    TOKENIZER_NAME as TOKENIZER_NAME,
    WEIGHTS_NAME as WEIGHTS_NAME,
    Run as Run,
)
from .seeds import (
    LABELS as LABELS,
    SEEDS_NAME as SEEDS_NAME,
    SeedsResult as SeedsResult,
    Spread as Spread,
    counting as counting,
    folder_of as folder_of,
    read_seeds as read_seeds,
    repeat as repeat,
    train_seeds as train_seeds,
)
from .settings import resolve_settings as resolve_settings
from .signals import Stop as Stop, listen as listen
from .significance import (
    mcnemar_p as mcnemar_p,
    paired_interval as paired_interval,
    welch_interval as welch_interval,
)
from .speech.compare import tune_speech_methods as tune_speech_methods
from .speech.config import SpeechTuneConfig as SpeechTuneConfig
from .speech.data import SoundData as SoundData, open_sounds as open_sounds
from .speech.tune import SpeechTuneResult as SpeechTuneResult, tune_speech as tune_speech
from .speech.use import (
    SpeechPredictor as SpeechPredictor,
    evaluate_speech as evaluate_speech,
)
from .step import seed_torch as seed_torch
from .sweep.extent import SweepConfig as SweepConfig
from .sweep.plan import SweepPlan as SweepPlan, plan_sweep as plan_sweep
from .sweep.result import SweepResult as SweepResult
from .sweep.start import sweep_settings as sweep_settings
from .tables import (
    check_new_tables as check_new_tables,
    prediction_table as prediction_table,
    write_evaluation as write_evaluation,
)
from .tuning.compare import (
    HEADER as HEADER,
    MethodsResult as MethodsResult,
    tune_methods as tune_methods,
)
from .tuning.config import TuneConfig as TuneConfig
from .tuning.start import ADAPTER_NAME as ADAPTER_NAME, TuneResult as TuneResult, tune as tune
from .update import Update as Update
from .versions import environment as environment
