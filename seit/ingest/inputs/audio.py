"""Conversion of audio bytes to the mono windows that a tokenizer takes.

Every file takes the same path: recognize the format by its first bytes, correct the lengths in the
header, validate it, decode block by block, mix all channels to their mean, resample, cut into
windows. So a clip needs memory for its windows and one block only, whatever its header states; the
windows of a long recording are not held but decoded again on demand.

Channels that cancel out, as when one is inverted, are not mixed: the loudest is used.

libsndfile decodes WAV, FLAC, Ogg (Vorbis, Opus), MP3, AIFF, AU, W64, CAF and NIST SPHERE; soxr
resamples. Both come with the extra ``audio``. A truncated file is unreadable, except in the
streaming formats MP3 and Ogg, which are read as far as they go. docs/formats.md lists what each
format becomes. (The MP3 library's remarks on damaged files go to stderr and cannot be suppressed.)

Whatever the bytes, the only error is ``UnreadableError``.

Legend: N samples of a clip, T samples of a window.
"""

import io
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from seit.errors import SeitError, UnreadableError, UsageError
from seit.extras import how_to_install
from seit.ingest.inputs.audio_bytes import settle
from seit.ingest.inputs.reader import LARGE_FILE_BYTES, Decoded, Reader, Sample
from seit.ingest.inputs.remarks import InputRemarks, Remark, ignore
from seit.ingest.sources import Instance, read_bytes

MAX_SECONDS = 600.0
"""Default limit on the length of a clip."""
HELD_SECONDS = 600.0
"""Longest clip whose windows are held (38 MB at 16 kHz); longer ones are decoded twice."""
MIN_RATE, MAX_RATE = 1_000, 384_000
"""Accepted sample rates of files, in Hz."""
MAX_VALUES = 1 << 33
"""Maximum frames × channels of a file: a day of stereo at 48 kHz."""
MAX_AMPLITUDE = 16.0
"""Maximum amplitude of floating-point files, whose full scale is 1."""
VALID_SECONDS = "valid_seconds"
"""Metadata field with the seconds of audio in a sample's window."""
CANCELS = "its channels cancel each other out; the loudest one alone was taken"
SILENT = "it is silent"

_LEAST_SHARE = 0.1
"""Minimum share of audio in a last window; an emptier one is dropped unless it is the only one."""
_BLOCK_VALUES = 1 << 18
_UNKNOWN_FRAMES = 1 << 40
"""Lowest frame count that libsndfile reports for streams of unknown length."""
_LEAST_ENERGY = 0.02
"""Ratio of the mean's energy × channels to the mean channel energy below which channels cancel."""
_SILENT_PEAK = 1e-4
_AHEAD_BYTES = 256 << 20
_EXPANSION = 8
"""Typical maximum of window bytes per file byte."""

_SPLIT = "split it"
_MORE_SECONDS = "`seit tokenize --max-seconds` takes more, or split it"


class Window(NamedTuple):
    """Part of a clip."""

    values: npt.NDArray[np.float32]
    """float32 (T,), zero-padded after the end of the clip."""
    num_valid: int
    """Number of samples that are audio, 1…T."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Windows of a clip, and the clips that are accepted.

    Attributes:
        sample_rate: sample rate of the windows, in Hz.
        window: samples per window, T.
        max_seconds: longest clip accepted; checked before and during decoding.
        least: samples of a last window below which it is dropped, unless it is the only one; None
            for a tenth of T.
        longer: advice for a longer clip.
    """

    sample_rate: int
    window: int
    max_seconds: float = MAX_SECONDS
    least: int | None = None
    longer: str = _SPLIT


def decode_audio(
    data: bytes,
    *,
    sample_rate: int,
    window: int,
    max_seconds: float = MAX_SECONDS,
    remark: Remark = ignore,
) -> list[Window]:
    """Decode a clip to adjacent mono windows; thread-safe.

    The last window is zero-padded; if under a tenth full, it is dropped unless it is the only one.

    Args:
        data: bytes of one audio file.
        sample_rate: sample rate of the windows, in Hz.
        window: samples per window, T.
        max_seconds: longest clip accepted; checked before and during decoding.
        remark: callback that receives a sentence for each thing dropped or assumed.

    Returns:
        At least one window; full scale is −1 to 1.

    Raises:
        UnreadableError: the bytes are not such a clip; the message is a short reason.
        UsageError: soundfile or soxr is not installed.
    """
    cut = Cut(sample_rate=sample_rate, window=window, max_seconds=max_seconds)
    return list(iterate_audio(data, cut, remark=remark))


def iterate_audio(data: bytes, cut: Cut, *, remark: Remark = ignore) -> Iterator[Window]:
    """Yield the windows of a clip as :func:`decode_audio` does, and hold none of a long one.

    A clip of more than 600 seconds is decoded twice.

    Raises:
        UnreadableError: the bytes are not such a clip; the message is a short reason.
        UsageError: soundfile or soxr is not installed.
    """
    clip = _Clip.of(data, cut, remark)
    most = max(1, int(HELD_SECONDS * cut.sample_rate / cut.window))
    found = survey(clip, remark, most=most)
    yield from clip.windows(found.channel) if found.windows is None else found.windows


class Survey(NamedTuple):
    """Findings of one pass through a clip.

    Attributes:
        num_windows: number of windows.
        channel: index of the only channel to use; None for the mean.
        windows: the windows; None if there are more than the limit.
    """

    num_windows: int
    channel: int | None
    windows: tuple[Window, ...] | None


def survey(clip: "_Clip", remark: Remark, *, most: int | None = None) -> Survey:
    """Decode a whole clip once and hold its windows if there are at most ``most``.

    Raises:
        UnreadableError: a part of it cannot be read.
    """
    found = _survey(clip, None, most)
    levels = clip.levels
    if levels.cancel:
        remark(CANCELS)
        found = _survey(clip, levels.loudest, most)
    if levels.peak < _SILENT_PEAK:
        remark(SILENT)
    return found


def _survey(clip: "_Clip", channel: int | None, most: int | None) -> Survey:
    held: list[Window] = []
    count = 0
    for count, part in enumerate(clip.windows(channel), 1):
        if most is None or count <= most:
            held.append(part)
        else:
            held.clear()
    is_held = most is None or count <= most
    return Survey(count, channel, tuple(held) if is_held else None)


class _Levels:
    """Energies of the channels and of their mean, and the overall peak."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._channels: npt.NDArray[np.float64] = np.zeros(1)
        self._mean = 0.0

    def add(self, block: npt.NDArray[np.float32], mean: npt.NDArray[np.float32]) -> None:
        """Add a block (n, channels) and its mean (n,)."""
        self.peak = max(self.peak, float(np.abs(block).max()))
        if block.shape[1] > 1:
            self._channels = self._channels + np.einsum("nc,nc->c", block, block, dtype=np.float64)
            self._mean += float(np.dot(mean.astype(np.float64), mean))

    @property
    def cancel(self) -> bool:
        """True if channels that are not silent nearly cancel out in their mean."""
        count = len(self._channels)
        if count < 2 or self.peak < _SILENT_PEAK:
            return False
        return bool(self._mean * count < _LEAST_ENERGY * self._channels.mean())

    @property
    def loudest(self) -> int:
        """Index of the channel with the most energy."""
        return int(self._channels.argmax())


class _Clip(NamedTuple):
    """Bytes of a clip as libsndfile takes them, and the settings of its decoding."""

    data: bytes
    cut: Cut
    levels: _Levels

    @classmethod
    def of(cls, data: bytes, cut: Cut, remark: Remark) -> "_Clip":
        """Correct the header of a file.

        Raises:
            UnreadableError: the format is unknown or the file is truncated.
        """
        import_libraries()
        if not data:
            raise UnreadableError("the file is empty")
        settled = settle(data, remark)
        return cls(settled, cut, _Levels())

    def windows(self, channel: int | None) -> Iterator[Window]:
        """Decode window by window: one channel, or the mean of all."""
        soundfile, _ = import_libraries()
        levels = self.levels if channel is None else _Levels()
        try:
            with soundfile.SoundFile(_Bytes(self.data)) as file:
                _check_header(file, self.cut)
                if file.frames >= _UNKNOWN_FRAMES:
                    file.seekable = lambda: False  # else it seeks after each read, and fails
                blocks = _mono_blocks(file, self.cut, levels, channel)
                resampled = _resample(blocks, file.samplerate, self.cut.sample_rate)
                yield from _cut(resampled, self.cut)
        except UnreadableError:
            raise
        except Exception as error:  # libsndfile reports faults of a file by many error types
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
    """Decoder that reads an instance and cuts it into windows, or gives the reason why it cannot.

    A clip of several windows makes samples with the keys ``key#0``, ``key#1``, …
    """

    sample_rate: int
    window: int
    max_seconds: float

    def __call__(self, item: Instance, /, *, exclusive: AbstractContextManager[Any]) -> Decoded:
        """Decode an instance, reading a large file under ``exclusive``."""
        num_bytes = 0
        remarks = InputRemarks()
        most = max(1, int(HELD_SECONDS * self.sample_rate / self.window))
        try:
            with exclusive if item.num_bytes >= LARGE_FILE_BYTES else nullcontext():
                data = read_bytes(item)
                num_bytes = len(data)
                found = survey(self.open(data, remarks), remarks, most=most)
        except UnreadableError as error:
            return Decoded(item, num_bytes, reason=str(error))
        samples: Collection[Sample] = LongSamples(item, self, found.num_windows, found.channel)
        if found.windows is not None:
            samples = tuple(self.name(item, found.windows, several=found.num_windows > 1))
        return Decoded(item, num_bytes, samples, remarks=remarks.sentences)

    def open(self, data: bytes, remark: Remark = ignore) -> _Clip:
        """Correct the header of a file.

        Raises:
            UnreadableError: the format is unknown or the file is truncated.
        """
        cut = Cut(
            sample_rate=self.sample_rate,
            window=self.window,
            max_seconds=self.max_seconds,
            longer=_MORE_SECONDS,
        )
        return _Clip.of(data, cut, remark)

    def name(self, item: Instance, windows: Iterable[Window], *, several: bool) -> Iterator[Sample]:
        """Make samples of the windows of a clip."""
        for number, (values, num_valid) in enumerate(windows):
            key = f"{item.key}#{number}" if several else item.key
            length = (VALID_SECONDS, round(num_valid / self.sample_rate, 6))
            yield Sample(replace(item, key=key, metadata=(*item.metadata, length)), values)


@dataclass(frozen=True)
class LongSamples(Collection[Sample]):
    """Samples of a long recording, decoded during iteration and never all held.

    Attributes:
        instance: the recording.
        decoder: decoder that cuts it.
        count: number of windows.
        channel: index of the only channel to use; None for the mean.
    """

    instance: Instance
    decoder: AudioDecoder
    count: int
    channel: int | None

    @override
    def __len__(self) -> int:
        return self.count

    @override
    def __contains__(self, sample: object) -> bool:
        return any(sample is one for one in self)

    @override
    def __iter__(self) -> Iterator[Sample]:
        try:
            windows = self.decoder.open(read_bytes(self.instance)).windows(self.channel)
            yield from self.decoder.name(self.instance, windows, several=True)
        except UnreadableError as error:
            raise SeitError(
                f"{self.instance.key} was read once and cannot be read again ({error}); run the "
                "same command when it is back"
            ) from error


class AudioReader(Reader):
    """Reader that decodes audio in a pool of threads or processes.

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
        """Yield decoded instances in order, holding at most ``ahead``.

        Fewer long clips are held, so that they take about 256 MB, by the mean size of the first.
        """
        rest = iter(instances)
        first: list[Instance] = []
        num_bytes = 0
        for entry in islice(rest, ahead):
            first.append(entry)
            num_bytes += max(0, entry.num_bytes)
            if num_bytes >= _AHEAD_BYTES:
                break
        held = _AHEAD_BYTES * len(first) // max(1, _EXPANSION * num_bytes)
        return super().read(chain(first, rest), ahead=max(2, min(ahead, held)))


class _Bytes(io.BytesIO):
    """Bytes in which a seek before the start, as damaged headers request, goes to the start."""

    @override
    def seek(self, offset: int, whence: int = 0, /) -> int:
        start = {0: 0, 1: self.tell(), 2: self.getbuffer().nbytes}.get(whence, 0)
        return super().seek(max(0, start + offset))


def _check_header(file: Any, cut: Cut) -> None:
    frames, channels, rate = int(file.frames), int(file.channels), int(file.samplerate)
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UnreadableError(f"{rate:,} samples a second; expected {MIN_RATE:,} to {MAX_RATE:,}")
    if frames < 1 or channels < 1:
        raise UnreadableError("it holds no samples")
    if file.format == "MP3" or frames >= _UNKNOWN_FRAMES:
        return  # an estimate, or unknown: the limit is checked during decoding
    if frames > cut.max_seconds * rate:
        raise UnreadableError(
            f"{frames / rate:,.0f} seconds is more than the limit of {cut.max_seconds:,.0f}; "
            f"{cut.longer}"
        )
    if frames * channels > MAX_VALUES:
        raise UnreadableError(
            f"{frames:,} samples of {channels} channels is more than the limit of {MAX_VALUES:,}; "
            "split it"
        )


def _mono_blocks(
    file: Any, cut: Cut, levels: _Levels, channel: int | None
) -> Iterator[npt.NDArray[np.float32]]:
    """Decode block by block one channel or the mean of all: float32 (n,) each."""
    step = max(1, _BLOCK_VALUES // file.channels)
    left = limit = min(int(cut.max_seconds * file.samplerate), MAX_VALUES // file.channels)
    while len(block := file.read(step, dtype="float32", always_2d=True)):
        left -= len(block)
        if left < 0:
            raise UnreadableError(
                f"it lasts longer than the limit of {limit / file.samplerate:,.0f} seconds; "
                f"{cut.longer}"
            )
        if not np.isfinite(block).all():
            raise UnreadableError("it holds values that are not finite (NaN or infinite)")
        peak = float(np.abs(block).max())
        if peak > MAX_AMPLITUDE:
            raise UnreadableError(f"its values reach {peak:.3g}; expected −1 to 1")
        mean = block.mean(axis=1, dtype=np.float32)
        levels.add(block, mean)
        yield mean if channel is None else np.ascontiguousarray(block[:, channel])
    if file.format == "FLAC" and limit - left < file.frames < _UNKNOWN_FRAMES:
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


def _cut(blocks: Iterable[npt.NDArray[np.float32]], cut: Cut) -> Iterator[Window]:
    """Cut blocks into windows."""
    window = cut.window
    least = _LEAST_SHARE * window if cut.least is None else cut.least
    values, filled, count = np.zeros(window, dtype=np.float32), 0, 0
    for block in blocks:
        while len(block):
            part, block = block[: window - filled], block[window - filled :]
            values[filled : filled + len(part)] = part
            filled += len(part)
            if filled == window:
                count += 1
                yield Window(values, window)
                values, filled = np.zeros(window, dtype=np.float32), 0
    if filled and (not count or filled >= least):
        count += 1
        yield Window(values, filled)
    if not count:
        raise UnreadableError("it holds no samples")


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "decoding needs more memory than there is"
    text = " ".join(str(getattr(error, "error_string", error)).split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f"bad audio data ({text[:120] or type(error).__name__})"
