"""Bytes of audio files as libsndfile takes them: formats, tags, and lengths in headers."""

from seit.errors import UnreadableError
from seit.ingest.inputs.mpeg import has_frames, settle_frames, skip_id3
from seit.ingest.inputs.remarks import Remark
from seit.ingest.inputs.riff import settle_lengths
from seit.ingest.inputs.signatures import refusal

CHAINED = "several streams one after the other; only the first is kept"

_MAX_PAGES = 1 << 20
_STARTS = (b"fLaC", b"OggS", b".snd", b"dns.", b"caff", b"NIST_1A", b"riff.\x91\xcf\x11")


def settle(data: bytes, remark: Remark) -> bytes:
    """Return the bytes that make libsndfile decode the same sound.

    Raises:
        UnreadableError: the format is unknown or the file is truncated.
    """
    start = skip_id3(data)
    if start and _is_audio(data[start : start + 16]):
        data = data[start:]  # libsndfile would count the tag as bytes of a WAV file
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
    """Return True if a second Ogg stream begins after data of the first."""
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


def _is_audio(data: bytes) -> bool:
    """Return True for the first bytes of a supported format other than MP3."""
    if data[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return data[8:12] == b"WAVE"
    if data[:4] == b"FORM":
        return data[8:12] in (b"AIFF", b"AIFC")
    return data.startswith(_STARTS)
