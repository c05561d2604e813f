"""Images and audio by the names of their files, for listings and for messages."""

import re
from collections.abc import Sequence
from itertools import chain

from seit.errors import UsageError
from seit.ingest.sources.corpus import Instance, shown
from seit.modality import Modality

EXTENSIONS: dict[Modality, tuple[str, ...]] = {
    "image": (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "bmp", "gif", "tif", "tiff"),
        *("ppm", "avif", "jp2", "j2k"),
        # not read: each is listed with its reason
        *("heic", "heif", "jxl", "psd", "nef", "cr2", "cr3", "arw", "dng", "raf", "orf", "rw2"),
    ),
    "audio": (
        *("flac", "wav", "ogg", "mp3", "opus", "oga", "aif", "aiff", "aifc"),
        *("w64", "rf64", "bw64", "au", "snd", "caf", "sph"),
        *("m4a", "aac", "amr", "wma"),  # not read, as above
    ),
}
_SIDE_FILE = re.compile(
    r"""\.( txt|md|rst|tex|html?|css|js|pdf|docx?|xlsx?|rtf
    | xml|jsonl?|ndjson|csv|tsv|ya?ml|toml|ini|cfg|conf|log
    | py|ipynb|sh|bat|mat|npy|npz|pkl|pickle|h5|hdf5|pth?|onnx|safetensors
    | parquet|arrow|names|data|cache|db|sqlite|zip|t?gz|tar|7z|rar
    | xmp|aae|cls|caption|lst|lab|textgrid|srt|vtt )\Z""",
    re.VERBOSE | re.IGNORECASE,
)
"""Names of what lies near pictures and clips: annotations, notes, tables, weights."""
NOUNS: dict[Modality, tuple[str, str]] = {"image": ("image", "images"), "audio": ("audio", "audio")}
"""For "no … member" and "holds no …"."""

_PROPOSED: dict[Modality, str] = {
    "image": "an image tokenizer, such as --tokenizer patch-pca-vq",
    "audio": "an audio tokenizer, such as --tokenizer mel-vq-5s (or -1s, -10s: seconds a window)",
}


def other(modality: Modality) -> Modality:
    """The modality that it is not."""
    return "audio" if modality == "image" else "image"


def proposal(source: str, found: Modality, count: int) -> str:
    """The message to who named a tokenizer of the other modality than a source holds."""
    return (
        f"{shown(source)} holds {count:,} {'audio files' if found == 'audio' else 'images'} and no "
        f"{NOUNS[other(found)][1]}; pass {_PROPOSED[found]}"
    )


def is_medium(name: str) -> bool:
    """Whether a file has the name of an image or of audio."""
    return name.rpartition(".")[2].lower() in chain(*EXTENSIONS.values())


def is_side_file(name: str) -> bool:
    """Return True for the name of notes and the like, neither of an image nor of audio.

    Files without an extension, or with an unknown one, may be images.
    """
    return _SIDE_FILE.search(name) is not None


def check_media(source: str, instances: Sequence[Instance], modality: Modality) -> None:
    """Refuse files whose names say that all images or audio among them are of the other kind.

    Raises:
        UsageError: the message proposes a tokenizer.
    """
    if sum(1 for _ in _of(instances, modality)):
        return
    found = sum(1 for _ in _of(instances, other(modality)))
    if found:
        raise UsageError(proposal(source, other(modality), found))


def _of(instances: Sequence[Instance], modality: Modality) -> list[Instance]:
    extensions = EXTENSIONS[modality]
    return [entry for entry in instances if entry.key.rpartition(".")[2].lower() in extensions]


def check_derived_keys(instances: Sequence[Instance], *, sign: str, part: str) -> None:
    """Refuse keys that the parts of another instance might have: its windows, or its views.

    Args:
        instances: all of a corpus.
        sign: text between the key of an instance and the number of its part.
        part: the word for a part.

    Raises:
        UsageError: a key is that of another instance, ``sign`` and a number.
    """
    keys = {entry.key for entry in instances}
    for key in keys:
        stem, found, number = key.rpartition(sign)
        if found and number.isascii() and number.isdigit() and stem in keys:
            raise UsageError(
                f"{shown(key)} has the name of a {part} of {shown(stem)}; rename one of them"
            )
