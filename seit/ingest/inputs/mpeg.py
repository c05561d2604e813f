"""Location of the first frame, and number of frames, in MP3 files.

Many files start with tags, zeros or remains of other streams. The frame count that encoders write
into the first frame (Xing, Info, VBRI) is wrong in files that were cut or joined; a decoder that
trusts it drops the rest. (ISO/IEC 11172-3 and 13818-3.)
"""

_RATES = (44_100, 48_000, 32_000)
_MPEG_1, _MPEG_2, _MPEG_25 = 3, 2, 0
_LAYER_3, _LAYER_2, _LAYER_1 = 1, 2, 3
_KBITS_1 = {
    _LAYER_1: (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    _LAYER_2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    _LAYER_3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_KBITS_2 = {
    _LAYER_1: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    _LAYER_2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    _LAYER_3: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_IN_A_ROW = 3
"""Consecutive frames required to recognize MP3."""
_MAX_SEARCH_BYTES = 1 << 21
_MAX_TAGS = 16
_APE, _APE_HEADER_BYTES, _ID3_HEADER_BYTES = b"APETAGEX", 32, 10
_MAX_FRAMES = 1 << 21


def skip_id3(data: bytes) -> int:
    """Return the offset after leading ID3v2 tags; 0 without any."""
    place = 0
    for _ in range(_MAX_TAGS):
        head = data[place : place + _ID3_HEADER_BYTES]
        if head[:3] != b"ID3" or len(head) < _ID3_HEADER_BYTES:
            break
        size = sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
        place += _ID3_HEADER_BYTES + size + (_ID3_HEADER_BYTES if head[5] & 0x10 else 0)
    return place


def find_first_frame(data: bytes) -> int | None:
    """Return the offset of the first of three consecutive frames; None if there is none nearby."""
    start = skip_id3(data)
    if data.startswith(_APE, start):
        start += _APE_HEADER_BYTES
    end = start + _MAX_SEARCH_BYTES
    place = data.find(b"\xff", start, end)
    while place >= 0:
        if _is_start(data, place):
            return place
        place = data.find(b"\xff", place + 1, end)
    return None


def has_frames(data: bytes) -> bool:
    """Return True for the start of an MP3 file with zeros or tags before its first frame."""
    begins = data.startswith((_APE, b"ID3", b"\0\0\0\0")) or data[:1] == b"\xff"
    return begins and find_first_frame(data) is not None


def settle_frames(data: bytes) -> bytes:
    """Return an MP3 file from its first frame on, with a frame count not below the true one."""
    first = find_first_frame(data)
    if first is None:
        return data
    # The decoder skips tags itself, and reads a few, so they stay.
    data = data[first:] if first != skip_id3(data) else data
    first = 0 if first != skip_id3(data) else first
    place = _count_place(data, first)
    if place is None:
        return data
    stated = int.from_bytes(data[place : place + 4], "big")
    found = _count_frames(data, first) - 1  # the frame with the count holds no sound
    if found <= stated + 1:
        return data
    return data[:place] + found.to_bytes(4, "big") + data[place + 4 :]


def _count_place(data: bytes, first: int) -> int | None:
    """Return the offset of the stated frame count, or None."""
    head = data[first : first + 64]
    for name in (b"Xing", b"Info"):
        at = head.find(name)
        if at >= 0 and head[at + 7 : at + 8] and head[at + 7] & 1:
            return first + at + 8
    return first + 50 if head[36:40] == b"VBRI" else None


def _count_frames(data: bytes, first: int) -> int:
    place, count = first, 0
    while count < _MAX_FRAMES and (size := frame_bytes(data[place : place + 4])):
        place, count = place + size, count + 1
    return count


def _is_start(data: bytes, place: int) -> bool:
    kind = data[place + 1 : place + 2]
    for _ in range(_IN_A_ROW):
        head = data[place : place + 4]
        size = frame_bytes(head)
        if not size or (head[1] ^ kind[0]) & 0x1E:  # another version or layer
            return False
        place += size
        if place == len(data):
            return True
    return True


def frame_bytes(head: bytes) -> int:
    """Return the length of a frame from its first four bytes; 0 for an invalid header."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    rate_index, kbit_index, padding = head[2] >> 2 & 3, head[2] >> 4, head[2] >> 1 & 1
    if version == 1 or layer == 0 or rate_index == 3 or not 0 < kbit_index < 15:
        return 0
    rate = _RATES[rate_index] >> {_MPEG_1: 0, _MPEG_2: 1, _MPEG_25: 2}[version]
    bits = 1000 * (_KBITS_1 if version == _MPEG_1 else _KBITS_2)[layer][kbit_index - 1]
    if layer == _LAYER_1:
        return (12 * bits // rate + padding) * 4
    samples = 72 if layer == _LAYER_3 and version != _MPEG_1 else 144
    return samples * bits // rate + padding
