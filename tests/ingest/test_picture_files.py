"""Pictures as their common writers leave them: read with the right pixels, or refused by name."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seit.errors import UnreadableError
from seit.ingest.inputs import colors
from seit.ingest.inputs.images import SEVERAL, decode_image, decode_whole
from seit.ingest.inputs.remarks import InputRemarks
from seit.ingest.inputs.tiff import check_first_picture, count_pictures

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
ROWS = b"".join(b"\0" + row.tobytes() for row in PIXELS)
BIG = b"x" * 1_500_000


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes, bad: int = 0) -> bytes:
    crc = zlib.crc32(kind + body) ^ bad
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def png(
    rows: bytes = ROWS, *, bits: int = 8, color: int = 2, before: bytes = b"", after: bytes = b""
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, color, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + before + pixels + after + chunk(b"IEND", b"")


def remarks_on(data: bytes) -> tuple[str, ...]:
    remarks = InputRemarks()
    decode_image(data, size=8, remark=remarks)
    return remarks.sentences


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"iCCP", b"p\0\0" + zlib.compress(BIG)),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(BIG)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(BIG)),
        chunk(b"tEXt", b"a\0b", bad=1),
        chunk(b"tRNS", b"\0"),
        chunk(b"gAMA", b"\0"),
        chunk(b"pHYs", b"\0\0"),
    ],
)
def test_metadata_never_costs_a_picture(metadata: bytes) -> None:
    for data in (png(before=metadata), png(after=metadata)):
        assert np.array_equal(decode_whole(data), PIXELS)


def test_the_orientation_outlives_odd_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    odd = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(BIG))
    data = png(before=odd + chunk(b"eXIf", exif.tobytes()[6:]))
    assert np.array_equal(decode_whole(data), PIXELS[::-1, ::-1])


def test_a_damaged_picture_stays_unreadable() -> None:
    with pytest.raises(UnreadableError, match=r"truncated|bad image data"):
        decode_whole(png()[:-60])
    apple = png()[:8] + chunk(b"CgBI", b"P\0 \2") + png()[8:]
    with pytest.raises(UnreadableError, match="CgBI"):
        decode_whole(apple)


@pytest.mark.parametrize(("bits", "low", "high"), [(2, 1, 2), (4, 1, 8)])
def test_a_transparent_gray_is_of_the_files_own_depth(bits: int, low: int, high: int) -> None:
    per_byte = 8 // bits
    left = sum(low << bits * place for place in range(per_byte))
    right = sum(high << bits * place for place in range(per_byte))
    half = 4 // per_byte
    rows = (b"\0" + bytes([left] * half + [right] * half)) * 8
    data = png(rows, bits=bits, color=0, before=chunk(b"tRNS", struct.pack(">H", low)))
    pixels = decode_whole(data)
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == high * 255 // ((1 << bits) - 1)).all()


def test_a_transparent_color_of_sixteen_bits() -> None:
    rows = (b"\0" + struct.pack(">8H", *[1000] * 4, *[40_000] * 4)) * 8
    pixels = decode_whole(
        png(rows, bits=16, color=0, before=chunk(b"tRNS", struct.pack(">H", 1000)))
    )
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == round(40_000 / 257)).all()
    rows = (b"\0" + struct.pack(">24H", *[258, 0, 0] * 4, *[0, 40_000, 0] * 4)) * 8
    key = chunk(b"tRNS", struct.pack(">3H", 258, 0, 0))
    pixels = decode_whole(png(rows, bits=16, before=key))
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == (0, 40_000 >> 8, 0)).all()


def test_alpha_that_hides_everything_is_not_believed() -> None:
    """Game textures and 32-bit BMP files keep other things in their fourth channel."""
    rgba = np.dstack([PIXELS, np.zeros((8, 8), np.uint8)])
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    body = rgba[::-1, :, [2, 1, 0, 3]].tobytes()
    head = struct.pack("<IiiHHIIiiII", 108, 8, 8, 1, 32, 3, len(body), 0, 0, 0, 0) + masks
    head += bytes(108 - len(head))
    bmp = b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head))
    for data in (encoded(Image.fromarray(rgba), "PNG"), bmp + head + body):
        assert np.array_equal(decode_whole(data), PIXELS)
        assert remarks_on(data) == (colors.HIDDEN,)
    blank = encoded(Image.new("RGBA", (8, 8), (9, 9, 9, 0)), "PNG")
    assert (decode_whole(blank) == 255).all()
    assert remarks_on(blank) == ()


def test_near_black_sixteen_bit_values_are_remarked_on() -> None:
    dark = np.full((8, 8), 4000, np.uint16)
    for kind in ("PNG", "TIFF"):
        assert remarks_on(encoded(Image.fromarray(dark), kind)) == (colors.DARK,)
        assert remarks_on(encoded(Image.fromarray(dark * 16), kind)) == ()
    rows = (b"\0" + struct.pack(">24H", *[4000] * 24)) * 8
    assert remarks_on(png(rows, bits=16)) == (colors.DARK,)


def set_tag(data: bytes, tag: int, value: int | None) -> bytes:
    """Change the first value of a tag of a little-endian TIFF, or rename it away."""
    out, start = bytearray(data), struct.unpack_from("<I", data, 4)[0]
    for number in range(struct.unpack_from("<H", data, start)[0]):
        at = start + 2 + 12 * number
        if struct.unpack_from("<H", data, at)[0] == tag:
            if value is None:
                struct.pack_into("<H", out, at, 60_000)
            else:
                struct.pack_into("<H", out, at + 8, value)
            return bytes(out)
    raise AssertionError(tag)


def test_channels_that_a_tiff_declares_in_odd_ways() -> None:
    half = np.full((8, 8), 128, np.uint8)
    gray = Image.fromarray(np.dstack([half // 2, half]), "LA")
    associated = set_tag(encoded(gray, "TIFF"), 338, 1)
    assert np.abs(decode_whole(associated).astype(int) - (64 + 127)).max() <= 1
    rgba = encoded(Image.fromarray(np.dstack([PIXELS, half])), "TIFF")
    assert remarks_on(set_tag(rgba, 338, None)) == (colors.UNDECLARED_ALPHA,)
    assert np.array_equal(decode_whole(set_tag(rgba, 338, 0)), PIXELS)
    signed = encoded(Image.fromarray(half), "TIFF", tiffinfo={339: 2})
    with pytest.raises(UnreadableError, match="signed 8-bit"):
        decode_whole(signed)


def test_a_color_map_of_eight_bit_values_is_not_black() -> None:
    image = Image.fromarray(PIXELS).quantize(8)
    expected = np.asarray(image.convert("RGB"))
    data = bytearray(encoded(image, "TIFF"))
    start = struct.unpack_from("<I", data, 4)[0]
    for number in range(struct.unpack_from("<H", data, start)[0]):
        tag, _, count, place = struct.unpack_from("<HHII", data, start + 2 + 12 * number)
        if tag == 320:
            values = struct.unpack_from(f"<{count}H", data, place)
            struct.pack_into(f"<{count}H", data, place, *(value >> 8 for value in values))
    assert np.array_equal(decode_whole(bytes(data)), expected)


def raw_file(*, thumbnail_first: bool = True, subfile: int = 1, photometric: int = 2) -> bytes:
    """A TIFF of a blue 4×4 picture, whose sub-directory holds the 8×8 one."""
    thumb, full = bytes([0, 0, 255]) * 16, PIXELS.tobytes()

    def short(value: int) -> bytes:
        return struct.pack("<HH", value, 0)

    def long(value: int) -> bytes:
        return struct.pack("<I", value)

    def picture(kind: int, side: int, place: int, color: int) -> list[tuple[int, int, int, bytes]]:
        return [
            (254, 4, 1, long(kind)),
            *((256, 4, 1, long(side)), (257, 4, 1, long(side)), (259, 3, 1, short(1))),
            *((262, 3, 1, short(color)), (273, 4, 1, long(place)), (277, 3, 1, short(3))),
            *((278, 4, 1, long(side)), (279, 4, 1, long(3 * side * side))),
        ]

    inner = 8 + 2 + 10 * 12 + 4
    place = inner + 2 + 9 * 12 + 4
    first = [*picture(subfile, 4, place, 2), (330, 4, 1, long(inner))]
    second = picture(0, 8, place + len(thumb), photometric)
    if not thumbnail_first:
        second = picture(1, 2, place, 2)

    def pack(entries: list[tuple[int, int, int, bytes]]) -> bytes:
        body = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
        return struct.pack("<H", len(entries)) + body + long(0)

    return b"II*\0" + long(8) + pack(first) + pack(second) + thumb + full


def test_a_thumbnail_is_not_taken_for_the_photo() -> None:
    for data in (raw_file(), raw_file(subfile=0), raw_file(photometric=32803)):
        with pytest.raises(UnreadableError, match=r"camera raw file.*convert it to JPEG"):
            decode_whole(data)
    # A small copy beside the picture is no reason to refuse it.
    kept = raw_file(thumbnail_first=False, subfile=0)
    check_first_picture(kept)


def test_several_frames_or_pages_are_remarked_on() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        several = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert remarks_on(several) == (SEVERAL,)
        assert remarks_on(encoded(frames[0], kind)) == ()
    assert count_pictures(encoded(frames[0], "TIFF", save_all=True, append_images=frames)) == 3


def test_a_jpeg_that_is_filled_up_with_zeros_is_truncated() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG")
    assert decode_whole(whole + bytes(500)).shape == (64, 48, 3)
    with pytest.raises(UnreadableError, match=r"truncated .its rest is zeros"):
        decode_whole(whole[: len(whole) // 2] + bytes(len(whole) // 2))


def test_cmyk_without_a_marker_is_remarked_on() -> None:
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    assert remarks_on(data) == ()
    place = data.index(b"\xff\xee")
    size = 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    assert remarks_on(data[:place] + data[place + size :]) == (colors.UNMARKED_CMYK,)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500), "a HEIC photo .*convert it to JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(500), "a HEIC photo"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(99), "a camera raw file"),
        (b"\0\0\0\x18ftypisom\0\0\0\1isommp42" + bytes(99), "a video .*extract frames"),
        (b"\xff\x0a" + bytes(99), "a JPEG XL image .*djxl"),
        (b"8BPS\0\1" + bytes(99), "a Photoshop document"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(99), "a camera raw file"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(99), "not an image .a side file of macOS"),
        (b"fLaC" + bytes(99), "not an image .a FLAC sound"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not an image .a WAV sound"),
    ],
)
def test_other_formats_are_named_with_what_to_do(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        decode_image(data, size=8)
