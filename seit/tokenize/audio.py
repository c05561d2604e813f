"""Audio bytes → the mono windows that a tokenizer takes.

Every file goes the same way: recognise it by its first bytes, check what its header says, decode
block by block, mix all channels down to their mean, resample, cut into windows. So a clip needs
the memory of its windows and of one block, whatever its header says.

libsndfile decodes WAV, FLAC, Ogg (Vorbis, Opus), MP3 and AIFF; soxr resamples. Both come with
the extra ``audio``. A WAV or FLAC file that ends early is unreadable; formats that are
made to be streamed, MP3 and Ogg, are read as far as they go. (What the MP3 library remarks on
damaged files goes straight to stderr and cannot be held back from here.)

Safety. Whatever the bytes, the only error is ``UnreadableError``.

Shape letters: N samples of a clip, T samples of a window.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from seit.errors import UnreadableError, UsageError
from seit.extras import how_to_install
from seit.tokenize.reading import LARGE_FILE_BYTES, Decoded, Reader, Sample
from seit.tokenize.sources import Instance, read_bytes

MAX_SECONDS = 600.0
"""Longest clip that is read: 38 MB at 16 kHz."""
MIN_RATE, MAX_RATE = 1_000, 384_000
"""Sample rates of files, in Hz."""
MAX_VALUES = 1 << 28
"""Frames × channels of a file."""
MAX_AMPLITUDE = 16.0
"""Of floating-point files, whose full scale is 1."""
VALID_SECONDS = "valid_seconds"
"""The entry of a sample's metadata that says how much of its window is audio."""

_LEAST_SHARE = 0.1
"""A last window of which less is audio is left out, unless it is the only one."""
_BLOCK_VALUES = 1 << 18
_UNKNOWN_BYTES = 0x7FFF_0000
"""Sizes from here on are what streams have in their headers."""
_AHEAD_BYTES = 256 << 20
_EXPANSION = 8
"""Bytes of windows to a byte of a file, at most, as a rule."""
_NOT_AUDIO = (
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull`"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89png", "a PNG image"),
    (b"gif8", "a GIF image"),
)


class Window(NamedTuple):
    """A part of a clip."""

    values: npt.NDArray[np.float32]
    """float32 (T,), zeros behind the end of the clip."""
    num_valid: int
    """Samples that are audio, 1…T."""


def decode_audio(
    data: bytes, *, sample_rate: int, window: int, max_seconds: float = MAX_SECONDS
) -> list[Window]:
    """Decode a clip to mono windows that lie next to each other.

    The last window is filled up with zeros; it is left out where it holds less than a tenth of a
    window and is not the only one. Safe to call from many threads.

    Args:
        data: the bytes of one audio file.
        sample_rate: of the windows, in Hz.
        window: T, samples.
        max_seconds: longest clip accepted; checked before decoding, and while.

    Returns:
        At least one window; full scale is −1 to 1.

    Raises:
        UnreadableError: with a short reason, for whatever bytes are no such clip.
        UsageError: soundfile or soxr is not installed.
    """
    soundfile, _ = import_libraries()
    if not data:
        raise UnreadableError("the file is empty")
    if not _is_audio(data):
        start = data[:64].lstrip().lower()
        kind = next((what for prefix, what in _NOT_AUDIO if start.startswith(prefix)), None)
        raise UnreadableError(f"not audio ({kind or 'unknown format'})")
    _check_whole(data)
    try:
        with soundfile.SoundFile(_Bytes(data)) as file:
            _check_header(file, max_seconds)
            blocks = _mono_blocks(file, max_seconds)
            return _cut(_resample(blocks, file.samplerate, sample_rate), window)
    except UnreadableError:
        raise
    except Exception as error:  # libsndfile has many words for what is wrong with a file
        raise UnreadableError(_reason(error)) from None


def import_libraries() -> tuple[Any, Any]:
    """Import soundfile and soxr, which only audio needs.

    Raises:
        UsageError: one is not installed.
    """
    try:
        import soundfile
        import soxr
    except (ImportError, OSError) as error:
        raise UsageError(
            f"audio needs soundfile and soxr ({error}); {how_to_install('audio')}"
        ) from None
    return soundfile, soxr


@dataclass(frozen=True)
class AudioDecoder:
    """Reads an instance and cuts it into windows; one that is unreadable comes with the reason.

    A clip of several windows makes samples of the keys ``key#0``, ``key#1``, …
    """

    sample_rate: int
    window: int
    max_seconds: float

    def __call__(self, item: Instance, /, *, exclusive: AbstractContextManager[Any]) -> Decoded:
        """Decode; large files are read inside of ``exclusive``."""
        num_bytes = 0
        try:
            with exclusive if item.num_bytes >= LARGE_FILE_BYTES else nullcontext():
                data = read_bytes(item)
                num_bytes = len(data)
                windows = decode_audio(
                    data,
                    sample_rate=self.sample_rate,
                    window=self.window,
                    max_seconds=self.max_seconds,
                )
        except UnreadableError as error:
            return Decoded(item, num_bytes, reason=str(error))
        return Decoded(item, num_bytes, tuple(self._samples(item, windows)))

    def _samples(self, item: Instance, windows: Sequence[Window]) -> Iterator[Sample]:
        for number, (values, num_valid) in enumerate(windows):
            key = f"{item.key}#{number}" if len(windows) > 1 else item.key
            length = (VALID_SECONDS, round(num_valid / self.sample_rate, 6))
            yield Sample(replace(item, key=key, metadata=(*item.metadata, length)), values)


class AudioReader(Reader):
    """Decodes audio in a pool of threads or of processes.

    Raises:
        UsageError: soundfile or soxr is not installed.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        window: int,
        max_seconds: float = MAX_SECONDS,
        workers: int | None = None,
        processes: bool = False,
    ) -> None:
        import_libraries()
        decoder = AudioDecoder(sample_rate, window, max_seconds)
        super().__init__(decoder, workers=workers, processes=processes)

    @override
    def read(self, instances: Iterable[Instance], *, ahead: int = 128) -> Iterator[Decoded]:
        """Yield the instances in their order, decoded; at most ``ahead`` are held at a time.

        Of long clips fewer are held, so that they take about 256 MB.
        """
        listed = list(instances)
        file_bytes = sum(max(0, entry.num_bytes) for entry in listed) // max(1, len(listed))
        held = _AHEAD_BYTES // max(1, _EXPANSION * file_bytes)
        return super().read(listed, ahead=max(2, min(ahead, held)))


class _Bytes(io.BytesIO):
    """Bytes in which seeking before the start, as damaged headers ask for, leads to the start."""

    @override
    def seek(self, offset: int, whence: int = 0, /) -> int:
        start = {0: 0, 1: self.tell(), 2: self.getbuffer().nbytes}.get(whence, 0)
        return super().seek(max(0, start + offset))


def _is_audio(data: bytes) -> bool:
    """Whether the first bytes are those of a format that is tried."""
    head = data[:12]
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return head[8:12] == b"WAVE"
    if head[:4] == b"FORM":
        return head[8:12] in (b"AIFF", b"AIFC")
    is_mpeg = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    return head[:4] in (b"fLaC", b"OggS") or head[:3] == b"ID3" or is_mpeg


def _check_whole(data: bytes) -> None:
    """Refuse a RIFF file that ends before its header says; writers to pipes give no such size."""
    if data[:4] not in (b"RIFF", b"RIFX"):
        return
    stated = 8 + int.from_bytes(data[4:8], "little" if data[:4] == b"RIFF" else "big")
    if len(data) + 1 < stated < _UNKNOWN_BYTES:
        raise UnreadableError(f"the file is truncated ({len(data):,} of {stated:,} bytes)")


def _check_header(file: Any, max_seconds: float) -> None:
    frames, channels, rate = int(file.frames), int(file.channels), int(file.samplerate)
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UnreadableError(f"{rate:,} samples a second; expected {MIN_RATE:,} to {MAX_RATE:,}")
    if frames < 1 or channels < 1:
        raise UnreadableError("it holds no samples")
    if frames > max_seconds * rate:
        raise UnreadableError(
            f"{frames / rate:,.0f} seconds is more than the limit of {max_seconds:,.0f}"
        )
    if frames * channels > MAX_VALUES:
        raise UnreadableError(
            f"{frames:,} samples of {channels} channels is more than the limit of {MAX_VALUES:,}"
        )


def _mono_blocks(file: Any, max_seconds: float) -> Iterator[npt.NDArray[np.float32]]:
    """Decode block by block: the mean of the channels, float32 (n,) each."""
    step = max(1, _BLOCK_VALUES // file.channels)
    left = limit = int(max_seconds * file.samplerate)
    while len(block := file.read(step, dtype="float32", always_2d=True)):
        left -= len(block)
        if left < 0:
            raise UnreadableError(f"it lasts longer than the limit of {max_seconds:,.0f} seconds")
        if not np.isfinite(block).all():
            raise UnreadableError("it holds values that are no numbers (NaN or infinite)")
        peak = float(np.abs(block).max())
        if peak > MAX_AMPLITUDE:
            raise UnreadableError(f"its values reach {peak:.3g}; expected −1 to 1")
        yield block.mean(axis=1, dtype=np.float32)
    if file.format == "FLAC" and limit - left < file.frames:
        raise UnreadableError(
            f"the file is truncated ({limit - left:,} of {file.frames:,} samples)"
        )


def _resample(
    blocks: Iterable[npt.NDArray[np.float32]], rate: int, sample_rate: int
) -> Iterator[npt.NDArray[np.float32]]:
    if rate == sample_rate:
        yield from blocks
        return
    _, soxr = import_libraries()
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _cut(blocks: Iterable[npt.NDArray[np.float32]], window: int) -> list[Window]:
    """Cut what comes in blocks into windows."""
    windows: list[Window] = []
    values, filled = np.zeros(window, dtype=np.float32), 0
    for block in blocks:
        while len(block):
            part, block = block[: window - filled], block[window - filled :]
            values[filled : filled + len(part)] = part
            filled += len(part)
            if filled == window:
                windows.append(Window(values, window))
                values, filled = np.zeros(window, dtype=np.float32), 0
    if filled and (not windows or filled >= _LEAST_SHARE * window):
        windows.append(Window(values, filled))
    if not windows:
        raise UnreadableError("it holds no samples")
    return windows


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "decoding needs more memory than there is"
    text = " ".join(str(getattr(error, "error_string", error)).split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f"bad audio data ({text[:120] or type(error).__name__})"
