from .capture import captured as captured
from .classifier import is_of_head as is_of_head
from .codebook import standardised as standardised
from .compression.bounds import (
    MAX_PROGRAM_BYTES as MAX_PROGRAM_BYTES,
    reads_other_files as reads_other_files,
)
from .compression.program import (
    PROGRAM_INPUT as PROGRAM_INPUT,
    PROGRAM_NAME as PROGRAM_NAME,
    OnnxClassifier as OnnxClassifier,
    check_runtime as check_runtime,
    open_session as open_session,
    parse_onnx as parse_onnx,
    read_onnx as read_onnx,
)
from .compression.selection import Selection as Selection, select as select
from .compression.sparse import SparseWeight as SparseWeight, is_worth_it as is_worth_it
from .compression.steps import (
    INPUTS as INPUTS,
    InputGrid as InputGrid,
    LearnedSteps as LearnedSteps,
    add_input_steps as add_input_steps,
    multiples as multiples,
)
from .compression.stored import Compression as Compression, StoredWeights as StoredWeights
from .compression.structure import (
    Structure as Structure,
    blocks_of as blocks_of,
    patch_projection as patch_projection,
    plain_vit as plain_vit,
)
from .create import (
    build_backbone as build_backbone,
    count_parameters as count_parameters,
    create_model as create_model,
    load_weights as load_weights,
)
from .encoder import check_encoder as check_encoder, encode as encode, pooled as pooled
from .layers import TOKENS as TOKENS, timm_layers as timm_layers
from .pretrained import Loaded as Loaded, load_pretrained as load_pretrained
from .speech import SpeechClassifier as SpeechClassifier
from .stem import Stem as Stem
from .timm_models import foreign_arguments as foreign_arguments
from .tokenadapt import (
    TokenAdapt as TokenAdapt,
    load_tokenadapt as load_tokenadapt,
    save_tokenadapt as save_tokenadapt,
)
from .tuning.base import Tuning as Tuning, keeps_statistics as keeps_statistics
from .tuning.checkpoint import (
    base_fingerprint as base_fingerprint,
    load_adapter as load_adapter,
    save_adapter as save_adapter,
)
from .tuning.config import METHODS as METHODS, Method as Method, TuningConfig as TuningConfig
from .tuning.registry import TUNINGS as TUNINGS, make_tuning as make_tuning
from .vision import (
    VisionInputs as VisionInputs,
    VisionNetwork as VisionNetwork,
    check_runs as check_runs,
    load_vision as load_vision,
)
from .vit import (
    disjoint_stem as disjoint_stem,
    is_vit as is_vit,
    takes_patches as takes_patches,
    vit_pixel_stem as vit_pixel_stem,
    vit_stem as vit_stem,
)
