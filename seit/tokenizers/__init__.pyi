from .base import (
    AudioInputs as AudioInputs,
    AudioTokenizer as AudioTokenizer,
    ImageInputs as ImageInputs,
    ImageTokenizer as ImageTokenizer,
    Inputs as Inputs,
    Tokenizer as Tokenizer,
)
from .files import (
    MAX_STORED_WEIGHT_BYTES as MAX_STORED_WEIGHT_BYTES,
    TOKENIZERS as TOKENIZERS,
    codebook_bytes as codebook_bytes,
    has_weights as has_weights,
    load_tokenizer as load_tokenizer,
    open_tokenizer as open_tokenizer,
    save_tokenizer as save_tokenizer,
    stored_tokenizer_bytes as stored_tokenizer_bytes,
    tokenizer_bytes as tokenizer_bytes,
    with_backbone as with_backbone,
)
from .fitted.dmel import NUM_VALUES as NUM_VALUES, DMelTokenizer as DMelTokenizer
from .fitted.kmeans import assign as assign, fit_kmeans as fit_kmeans
from .fitted.mel_vq import (
    MelTokenizer as MelTokenizer,
    ResidualMelTokenizer as ResidualMelTokenizer,
)
from .fitted.patch import (
    PatchTokenizer as PatchTokenizer,
    ResidualPatchTokenizer as ResidualPatchTokenizer,
)
from .imported import ImportedTokenizer as ImportedTokenizer
from .learned.autoencoder import (
    Autoencoder as Autoencoder,
    NetworkConfig as NetworkConfig,
    unfold as unfold,
)
from .learned.base import LearnedTokenizer as LearnedTokenizer
from .learned.bounds import MAX_CODES as MAX_CODES, Bound as Bound
from .learned.conv import ConvTokenizer as ConvTokenizer, to_planes as to_planes
from .learned.mel_conv import PLANE_RANGE as PLANE_RANGE, MelConvTokenizer as MelConvTokenizer
from .mel import (
    FLOOR_DB as FLOOR_DB,
    RANGE_DB as RANGE_DB,
    MelConfig as MelConfig,
    MelFrontEnd as MelFrontEnd,
    SpectrogramTokenizer as SpectrogramTokenizer,
    mel_filters as mel_filters,
    mel_pictures as mel_pictures,
)
from .model_config import read_model_config as read_model_config
from .pictures import decode_pictures as decode_pictures
from .presets import MEL_CONFIGS as MEL_CONFIGS, PRESETS as PRESETS, Preset as Preset
from .published import load_published as load_published
from .published.base import DEFAULT_SIZE as DEFAULT_SIZE
from .published.checkpoints import fetch as fetch, read_checkpoint as read_checkpoint
from .published.references import ReferableTokenizer as ReferableTokenizer
from .quality import (
    AnyQuality as AnyQuality,
    AudioQuality as AudioQuality,
    Measurement as Measurement,
    Quality as Quality,
    UnitQuality as UnitQuality,
    mean_psnr as mean_psnr,
    measure as measure,
    measure_quality as measure_quality,
    varies as varies,
)
from .shipped import find_shipped as find_shipped, list_shipped as list_shipped
from .similarity import MIN_SIDE as MIN_SIDE, ms_ssim as ms_ssim
from .speech.layouts import LAYOUTS as LAYOUTS, SAMPLE_RATE as SAMPLE_RATE
from .speech.load import load_speech as load_speech, random_speech as random_speech
from .speech.network import LEAST_SAMPLES as LEAST_SAMPLES, SpeechNetwork as SpeechNetwork
from .speech.states import HiddenLayer as HiddenLayer, network_fingerprint as network_fingerprint
from .speech.stem_cache import StemCache as StemCache
from .speech.units import (
    MAX_WINDOW_SECONDS as MAX_WINDOW_SECONDS,
    UnitSettings as UnitSettings,
    UnitTokenizer as UnitTokenizer,
    backbone_name as backbone_name,
)
from .summaries import PRESET_SUMMARIES as PRESET_SUMMARIES
