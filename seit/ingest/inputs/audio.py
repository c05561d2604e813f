"""Audio bytes → the mono windows that a tokenizer takes.

Every file goes the same way: recognize it by its first bytes, settle the lengths in its header,
check what it says, decode block by block, mix all channels down to their mean, resample, cut into
windows. So a clip needs the memory of its windows and of one block, whatever its header says; the
windows of a long recording are not held but decoded again when they are wanted.

Channels that cancel each other out, as when one is inverted, are not mixed: the loudest is taken.

libsndfile decodes WAV, FLAC, Ogg (Vorbis, Opus), MP3, AIFF, AU, W64, CAF and NIST SPHERE; soxr
resamples. Both come with the extra ``audio``. A file that ends early is unreadable;
formats that are made to be streamed, MP3 and Ogg, are read as far as they go. What each format
becomes is in docs/formats.md. (What the MP3 library remarks on damaged files goes straight to
stderr and cannot be held back from here.)

Safety. Whatever the bytes, the only error is ``UnreadableError``.

Shape letters: N samples of a clip, T samples of a window.
"""

import io
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from seit.errors import SeitError, UnreadableError, UsageError
from seit.extras import how_to_install
from seit.ingest.inputs.mpeg import has_frames, settle_frames, skip_id3
from seit.ingest.inputs.reader import LARGE_FILE_BYTES, Decoded, Reader, Sample
from seit.ingest.inputs.remarks import InputRemarks, Remark, ignore
from seit.ingest.inputs.riff import settle_lengths
from seit.ingest.inputs.signatures import refusal
from seit.ingest.sources import Instance, read_bytes

MAX_SECONDS = 600.0
"""Longest clip that is read unless another limit is given."""
HELD_SECONDS = 600.0
"""Clips up to here are held as windows, 38 MB at 16 kHz; longer ones are decoded twice."""
MIN_RATE, MAX_RATE = 1_000, 384_000
"""Sample rates of files, in Hz."""
MAX_VALUES = 1 << 33
"""Frames × channels of a file: a day of stereo at 48 kHz."""
MAX_AMPLITUDE = 16.0
"""Of floating-point files, whose full scale is 1."""
VALID_SECONDS = "valid_seconds"
"""The entry of a sample's metadata that says how much of its window is audio."""
CANCELS = "its channels cancel each other out; the loudest one alone was taken"
SILENT = "it is silent"
CHAINED = "several streams one after the other; only the first is kept"

_LEAST_SHARE = 0.1
"""A last window of which less is audio is left out, unless it is the only one."""
_BLOCK_VALUES = 1 << 18
_UNKNOWN_FRAMES = 1 << 40
"""Frame counts from here on are what libsndfile gives for streams without one."""
_LEAST_ENERGY = 0.02
"""Share of the channels' energy, times their number, that is left in a mean that is no silence."""
_SILENT_PEAK = 1e-4
_AHEAD_BYTES = 256 << 20
_EXPANSION = 8
"""Bytes of windows to a byte of a file, at most, as a rule."""
_MAX_PAGES = 1 << 20
_MORE_SECONDS = "pass --max-seconds to take more, or split it"
_STARTS = (b"fLaC", b"OggS", b".snd", b"dns.", b"caff", b"NIST_1A", b"riff.\x91\xcf\x11")


class Window(NamedTuple):
    """A part of a clip."""

    values: npt.NDArray[np.float32]
    """float32 (T,), zeros behind the end of the clip."""
    num_valid: int
    """Samples that are audio, 1…T."""


def decode_audio(
    data: bytes,
    *,
    sample_rate: int,
    window: int,
    max_seconds: float = MAX_SECONDS,
    remark: Remark = ignore,
) -> list[Window]:
    """Decode a clip to mono windows that lie next to each other.

    The last window is filled up with zeros; it is left out where it holds less than a tenth of a
    window and is not the only one. Safe to call from many threads.

    Args:
        data: the bytes of one audio file.
        sample_rate: of the windows, in Hz.
        window: T, samples.
        max_seconds: longest clip accepted; checked before decoding, and while.
        remark: called with what was left out or assumed, a sentence each.

    Returns:
        At least one window; full scale is −1 to 1.

    Raises:
        UnreadableError: with a short reason, for whatever bytes are no such clip.
        UsageError: soundfile or soxr is not installed.
    """
    clip = _Clip.of(data, sample_rate, window, max_seconds, remark)
    windows = survey(clip, remark).windows
    assert windows is not None
    return list(windows)


class Survey(NamedTuple):
    """What one pass through a clip found.

    Attributes:
        num_windows: windows of it.
        channel: the only channel to take; None for the mean.
        windows: they, unless there are more than were to be held.
    """

    num_windows: int
    channel: int | None
    windows: tuple[Window, ...] | None


def survey(clip: "_Clip", remark: Remark, *, most: int | None = None) -> Survey:
    """Decode a whole clip once and hold its windows if there are at most ``most``.

    Raises:
        UnreadableError: some part of it cannot be read.
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
    """Energies of the channels and of their mean, and the highest value of any."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._channels: npt.NDArray[np.float64] = np.zeros(1)
        self._mean = 0.0

    def add(self, block: npt.NDArray[np.float32], mean: npt.NDArray[np.float32]) -> None:
        """Count a block (n, channels) and its mean (n,)."""
        self.peak = max(self.peak, float(np.abs(block).max()))
        if block.shape[1] > 1:
            self._channels = self._channels + np.einsum("nc,nc->c", block, block, dtype=np.float64)
            self._mean += float(np.dot(mean.astype(np.float64), mean))

    @property
    def cancel(self) -> bool:
        """Whether nearly nothing of channels that are no silence is left in their mean."""
        count = len(self._channels)
        if count < 2 or self.peak < _SILENT_PEAK:
            return False
        return bool(self._mean * count < _LEAST_ENERGY * self._channels.mean())

    @property
    def loudest(self) -> int:
        """The number of the channel of the most energy."""
        return int(self._channels.argmax())


class _Clip(NamedTuple):
    """The bytes of a clip that libsndfile takes, and what becomes of them."""

    data: bytes
    sample_rate: int
    window: int
    max_seconds: float
    levels: _Levels

    @classmethod
    def of(
        cls, data: bytes, sample_rate: int, window: int, max_seconds: float, remark: Remark
    ) -> "_Clip":
        """Settle the header of a file.

        Raises:
            UnreadableError: it is no audio that is known, or is truncated.
        """
        import_libraries()
        if not data:
            raise UnreadableError("the file is empty")
        settled = _settled(data, remark)
        return cls(settled, sample_rate, window, max_seconds, _Levels())

    def windows(self, channel: int | None) -> Iterator[Window]:
        """Decode window by window, one channel of it or the mean of all."""
        soundfile, _ = import_libraries()
        levels = self.levels if channel is None else _Levels()
        try:
            with soundfile.SoundFile(_Bytes(self.data)) as file:
                _check_header(file, self.max_seconds)
                if file.frames >= _UNKNOWN_FRAMES:
                    file.seekable = lambda: False  # else it seeks after each read, and fails
                blocks = _mono_blocks(file, self.max_seconds, levels, channel)
                resampled = _resample(blocks, file.samplerate, self.sample_rate)
                yield from _cut(resampled, self.window)
        except UnreadableError:
            raise
        except Exception as error:  # libsndfile has many words for what is wrong with a file
            raise UnreadableError(_reason(error)) from None


def _settled(data: bytes, remark: Remark) -> bytes:
    """Return the bytes that libsndfile takes for the same sound.

    Raises:
        UnreadableError: it is no audio that is known, or is truncated.
    """
    start = skip_id3(data)
    if start and _is_audio(data[start : start + 16]):
        data = data[start:]  # libsndfile would count the tag among the bytes of a WAV file
    if _is_audio(data):
        if data[:4] == b"OggS" and _is_chained(data):
            remark(CHAINED)
        return settle_lengths(data, remark)
    if has_frames(data):
        return settle_frames(data)
    reason = refusal(data, "audio")
    if data[:3] == b"ID3" or (data[:1] == b"\xff" and reason.startswith("not audio (unknown")):
        reason = "bad audio data (no MPEG frames follow each other)"
    raise UnreadableError(reason)


def _is_chained(data: bytes) -> bool:
    """Whether a second Ogg stream begins where the first has begun to give data."""
    place, has_data = 0, False
    for _ in range(_MAX_PAGES):
        if data[place : place + 4] != b"OggS" or place + 27 > len(data):
            break
        is_first = bool(data[place + 5] & 2)
        if is_first and has_data:
            return True
        has_data = has_data or not is_first
        table = data[place + 27 : place + 27 + data[place + 26]]
        place += 27 + len(table) + sum(table)
    return False


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
        """Settle the header of a file.

        Raises:
            UnreadableError: it is no audio that is known, or is truncated.
        """
        return _Clip.of(data, self.sample_rate, self.window, self.max_seconds, remark)

    def name(self, item: Instance, windows: Iterable[Window], *, several: bool) -> Iterator[Sample]:
        """Make samples of the windows of a clip."""
        for number, (values, num_valid) in enumerate(windows):
            key = f"{item.key}#{number}" if several else item.key
            length = (VALID_SECONDS, round(num_valid / self.sample_rate, 6))
            yield Sample(replace(item, key=key, metadata=(*item.metadata, length)), values)


@dataclass(frozen=True)
class LongSamples(Collection[Sample]):
    """The samples of a long recording: decoded while one goes through them, never all held.

    Attributes:
        instance: the recording.
        decoder: what cuts it.
        count: its windows.
        channel: the only channel to take; None for the mean.
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
    """Whether the first bytes are those of a format that is tried, other than MP3."""
    if data[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return data[8:12] == b"WAVE"
    if data[:4] == b"FORM":
        return data[8:12] in (b"AIFF", b"AIFC")
    return data.startswith(_STARTS)


def _check_header(file: Any, max_seconds: float) -> None:
    frames, channels, rate = int(file.frames), int(file.channels), int(file.samplerate)
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UnreadableError(f"{rate:,} samples a second; expected {MIN_RATE:,} to {MAX_RATE:,}")
    if frames < 1 or channels < 1:
        raise UnreadableError("it holds no samples")
    if file.format == "MP3" or frames >= _UNKNOWN_FRAMES:
        return  # an estimate, or unknown: the limit holds while decoding
    if frames > max_seconds * rate:
        raise UnreadableError(
            f"{frames / rate:,.0f} seconds is more than the limit of {max_seconds:,.0f}; "
            f"{_MORE_SECONDS}"
        )
    if frames * channels > MAX_VALUES:
        raise UnreadableError(
            f"{frames:,} samples of {channels} channels is more than the limit of {MAX_VALUES:,}; "
            "split it"
        )


def _mono_blocks(
    file: Any, max_seconds: float, levels: _Levels, channel: int | None
) -> Iterator[npt.NDArray[np.float32]]:
    """Decode block by block: a channel or the mean of all, float32 (n,) each."""
    step = max(1, _BLOCK_VALUES // file.channels)
    left = limit = min(int(max_seconds * file.samplerate), MAX_VALUES // file.channels)
    while len(block := file.read(step, dtype="float32", always_2d=True)):
        left -= len(block)
        if left < 0:
            raise UnreadableError(
                f"it lasts longer than the limit of {limit / file.samplerate:,.0f} seconds; "
                f"{_MORE_SECONDS}"
            )
        if not np.isfinite(block).all():
            raise UnreadableError("it holds values that are no numbers (NaN or infinite)")
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


def _cut(blocks: Iterable[npt.NDArray[np.float32]], window: int) -> Iterator[Window]:
    """Cut what comes in blocks into windows."""
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
    if filled and (not count or filled >= _LEAST_SHARE * window):
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
