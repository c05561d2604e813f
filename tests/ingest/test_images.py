"""Image bytes → uint8 squares: colours, geometry, formats, and any bytes at all."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from PIL import Image, JpegImagePlugin, features

from seit.errors import UnreadableError, UsageError
from seit.ingest.inputs import images as decode
from seit.ingest.inputs.images import decode_image

RED, BLUE, WHITE = (230, 20, 30), (20, 40, 220), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int, height: int) -> Image.Image:
    """A smooth picture with some texture, which survives JPEG well."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    planes = [np.sin(9 * x + 3 * y), np.cos(7 * y - 4 * x), np.sin(40 * x * y)]
    return Image.fromarray(np.rint(127.5 + 100 * np.stack(planes, -1)).astype(np.uint8))


def halves(width: int = 64, height: int = 64) -> Image.Image:
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height))
    return image


def check_halves(pixels: np.ndarray, tolerance: int) -> None:
    """The left half is red, the right half blue, away from the edge between them."""
    half = pixels.shape[1] // 2
    margin = max(2, half // 4)
    left, right = pixels[:, : half - margin], pixels[:, half + margin :]
    assert np.abs(left.astype(int) - RED).max() <= tolerance
    assert np.abs(right.astype(int) - BLUE).max() <= tolerance


LOSSLESS = [
    ("PNG", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("PPM", {}),
    ("WEBP", {"lossless": True}),
]
LOSSY = [
    ("JPEG", {"quality": 95, "subsampling": 0}),
    ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
    ("WEBP", {"quality": 95}),
    ("TIFF", {"compression": "jpeg", "quality": 95}),
    *([("AVIF", {"quality": 95, "subsampling": "4:4:4"})] if features.check("avif") else []),
    *([("JPEG2000", {})] if features.check("jpg_2000") else []),
]


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_lossless_formats_keep_every_value(kind: str, options: dict[str, Any]) -> None:
    pixels = decode_image(encoded(halves(), kind, **options), size=64)
    assert pixels.shape == (64, 64, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert np.array_equal(pixels, np.asarray(halves()))


@pytest.mark.parametrize(("kind", "options"), LOSSY)
@pytest.mark.parametrize("size", [32, 64, 100])
def test_lossy_formats_keep_the_colours(kind: str, options: dict[str, Any], size: int) -> None:
    check_halves(decode_image(encoded(halves(), kind, **options), size=size), 9)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr"])
def test_modes_become_the_rgb_that_pillow_shows(mode: str) -> None:
    image = halves().convert(mode)
    kind = {"CMYK": "TIFF", "YCbCr": "TIFF", "PA": "WEBP"}.get(mode, "PNG")
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(image.convert("RGBA") if mode == "PA" else image, kind, **options)
    expected = np.asarray(image.convert("RGB")).astype(int)
    pixels = decode_image(data, size=64)
    assert np.abs(pixels - expected).max() <= 2
    assert decode_image(data, size=31).shape == (31, 31, 3)


def test_gif_palette_colours() -> None:
    check_halves(decode_image(encoded(halves(), "GIF"), size=64), 2)


def test_cmyk_jpeg_red_is_red() -> None:
    """Pillow writes and reads CMYK the way Adobe does, inverted and marked."""
    image = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    pixels = decode_image(encoded(image, "JPEG", quality=95), size=48)
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() <= 4
    dark = Image.new("CMYK", (64, 64), (0, 0, 0, 255))
    assert decode_image(encoded(dark, "JPEG", quality=95), size=48).max() <= 4


def test_transparency_goes_over_white() -> None:
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((200, 0, 0, 128), (20, 0, 40, 40))
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        pixels = decode_image(encoded(image, kind, **options), size=40).astype(int)
        assert (pixels[:, :18] == 255).all()
        blend = np.rint(255 + (np.array([200, 0, 0]) - 255) * 128 / 255)
        assert np.abs(pixels[:, 22:] - blend).max() <= 1
        # Transparent black must not darken the edge: as if composited before the resizing.
        flat = Image.alpha_composite(Image.new("RGBA", (40, 40), WHITE), image).convert("RGB")
        expected = np.asarray(flat.resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
        edge = decode_image(encoded(image, kind, **options), size=64).astype(int)
        assert np.abs(edge - expected).max() <= 2


def test_palette_and_colour_key_transparency() -> None:
    palette = halves().quantize(8)
    red = palette.getpixel((0, 0))
    assert isinstance(red, int)
    for kind in ("PNG", "GIF"):
        pixels = decode_image(encoded(palette, kind, transparency=red), size=64)
        assert (pixels[:, :24] == 255).all()
        assert np.abs(pixels[:, 40:].astype(int) - BLUE).max() <= 2
    alphas = bytes(0 if index == red else 255 for index in range(8))
    pixels = decode_image(encoded(palette, "PNG", transparency=alphas), size=64)
    assert (pixels[:, :24] == 255).all()
    key = decode_image(encoded(halves(), "PNG", transparency=RED), size=64)
    assert (key[:, :24] == 255).all()
    grey = Image.new("L", (8, 8), 7)
    assert (decode_image(encoded(grey, "PNG", transparency=7), size=8) == 255).all()


RAMP = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(256, 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bit_ramp_is_scaled_not_clipped(kind: str) -> None:
    if kind == "JPEG2000" and not features.check("jpg_2000"):
        pytest.skip("Pillow without JPEG 2000")
    options = {"irreversible": False} if kind == "JPEG2000" else {}
    pixels = decode_image(encoded(Image.fromarray(RAMP), kind, **options), size=256)
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    row = pixels[100, :, 0].astype(int)
    assert np.abs(row - np.arange(256)).max() <= 1
    assert (np.diff(row) >= 0).all()
    assert row[0] == 0
    assert row[-1] == 255
    half = decode_image(encoded(Image.fromarray(RAMP), kind, **options), size=128)
    assert half[0, -1, 0] >= 254


def test_big_endian_and_white_is_zero_tiffs() -> None:
    big = Image.frombytes("I;16B", (256, 256), RAMP.astype(">u2").tobytes())
    row = decode_image(encoded(big, "TIFF"), size=256)[0, :, 0].astype(int)
    assert np.abs(row - np.arange(256)).max() <= 1
    data = encoded(Image.fromarray(RAMP), "TIFF", tiffinfo={262: 0})
    row = decode_image(data, size=256)[0, :, 0].astype(int)
    assert np.abs(row - np.arange(255, -1, -1)).max() <= 1


def test_thirty_two_bit_integers_and_floats() -> None:
    as_int = decode_image(encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), size=256)
    assert np.abs(as_int[0, :, 0].astype(int) - np.arange(256)).max() <= 1
    as_float = Image.fromarray((RAMP / 65535).astype(np.float32))
    for kind in ("TIFF", "PPM"):
        row = decode_image(encoded(as_float, kind), size=256)[0, :, 0].astype(int)
        assert np.abs(row - np.arange(256)).max() <= 1
    for values in (RAMP.astype(np.int32) * 2, RAMP.astype(np.int32) - 5):
        with pytest.raises(UnreadableError, match="integer values reach"):
            decode_image(encoded(Image.fromarray(values), "TIFF"), size=32)
    for bad in (255.0, -0.5, np.nan, np.inf):
        values = np.zeros((8, 8), np.float32)
        values[3, 3] = bad
        with pytest.raises(UnreadableError, match="float values reach"):
            decode_image(encoded(Image.fromarray(values), "TIFF"), size=8)


def test_sixteen_bit_colour_png() -> None:
    """Pillow keeps the high byte of 16-bit colour."""
    rows = (
        b"\0" + np.array([[v, 65535 - v, 0] for v in RAMP[0]], ">u2").tobytes() for _ in range(256)
    )
    data = png_of(256, 256, 16, 2, b"".join(rows))
    pixels = decode_image(data, size=256)[7].astype(int)
    assert np.abs(pixels[:, 0] - np.arange(256)).max() <= 1
    assert np.abs(pixels[:, 1] - np.arange(255, -1, -1)).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_puts_the_red_corner_top_left(kind: str, orientation: int) -> None:
    """Store the picture as the camera would have, tag it, and expect the upright picture."""
    upright = Image.new("RGB", (96, 96), BLUE)
    upright.paste(RED, (0, 0, 48, 48))
    upright.paste(WHITE, (48, 0, 96, 48))  # red, white / blue, blue: no symmetry
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    stored = stored.resize((96, 96))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"exif": exif}
    if kind == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
    pixels = decode_image(encoded(stored, kind, **options), size=96).astype(int)
    for colour, corner in (
        (RED, pixels[8:40, 8:40]),
        (WHITE, pixels[8:40, 56:88]),
        (BLUE, pixels[56:88]),
    ):
        assert np.abs(corner - colour).max() <= 12


def test_orientation_of_a_wide_picture_crops_its_centre() -> None:
    wide = np.zeros((40, 120), np.uint8)
    wide[:, 40:80] = 200  # the centre square
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "TIFF"):
        data = encoded(Image.fromarray(wide), kind, exif=exif)
        assert (decode_image(data, size=40) == 200).all()


@pytest.mark.parametrize(("width", "height"), [(100, 60), (60, 100), (61, 40), (41, 100)])
def test_centre_crop_is_exact(width: int, height: int) -> None:
    """Without scaling, integer crops are exact; odd margins fall half a pixel between two."""
    side = min(width, height)
    y, x = np.mgrid[0:height, 0:width]
    image = Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))
    pixels = decode_image(encoded(image, "PNG"), size=side).astype(float)
    left, top = (width - side) / 2, (height - side) / 2
    inner = slice(2, -2)
    expected_x = np.arange(side)[inner] + left
    expected_y = np.arange(side)[inner] + top
    assert np.abs(pixels[5, inner, 0] - expected_x).max() <= 0.5 * (left % 1 > 0)
    assert np.abs(pixels[inner, 5, 1] - expected_y).max() <= 0.5 * (top % 1 > 0)


def test_scaled_crop_matches_scaling_the_cropped_picture() -> None:
    image = photo(300, 200)
    cropped = image.crop((50, 0, 250, 200))
    expected = np.asarray(cropped.resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    pixels = decode_image(encoded(image, "PNG"), size=64).astype(int)
    # Only the filter's support at the cut differs: the real picture goes on there.
    assert np.abs(pixels - expected)[:, 3:-3].max() <= 1
    assert np.abs(pixels - expected).mean() < 0.3


def test_extreme_shapes() -> None:
    for width, height in ((1, 1), (1, 3000), (3000, 1), (2, 5)):
        image = Image.new("RGB", (width, height), RED)
        assert (decode_image(encoded(image, "PNG"), size=17) == RED).all()


def test_large_photos_are_decoded_at_a_smaller_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(500, 375).resize((4000, 3000)), "JPEG", quality=90)
    chosen = []
    draft = JpegImagePlugin.JpegImageFile.draft

    def spy(self: JpegImagePlugin.JpegImageFile, mode: str | None, size: tuple[int, int]) -> object:
        result = draft(self, mode, size)
        chosen.append(self.size)
        return result

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", spy)
    small = decode_image(data, size=256)
    assert chosen == [(1000, 750)]

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", lambda *_: None)
    full = decode_image(data, size=256)
    assert np.abs(small.astype(int) - full).mean() < 1


def test_draft_keeps_the_geometry_of_odd_sizes() -> None:
    """A size that no DCT scale divides must not shift the picture."""
    image = photo(1013, 787)
    small = decode_image(encoded(image, "JPEG", quality=95, subsampling=0), size=64)
    full = decode_image(encoded(image, "PNG"), size=64)
    assert np.abs(small.astype(int) - full).mean() < 1.5


def test_animations_give_their_first_frame() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE)]
    for kind, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.abs(decode_image(data, size=32).astype(int) - RED).max() <= 2


def test_multi_picture_jpeg_gives_its_first_picture() -> None:
    data = encoded(halves(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 64))])
    check_halves(decode_image(data, size=64), 40)


def png_of(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    packed = zlib.compress(rows)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def test_bombs_are_refused_by_their_header() -> None:
    bomb = png_of(50_000, 40_000, 8, 2, b"")
    with pytest.raises(UnreadableError, match="50000 × 40000 pixels is more than the limit of 178"):
        decode_image(bomb, size=64)
    # Between Pillow's warning level and the limit: no warning, and the missing data is the reason.
    with pytest.raises(UnreadableError, match=r"truncated|bad image data"):
        decode_image(png_of(10_000, 9_000, 1, 0, b""), size=64)
    with pytest.raises(UnreadableError, match=r"64 × 64 pixels is more than the limit of 4,095"):
        decode_image(encoded(halves(), "PNG"), size=64, max_pixels=4095)
    assert decode_image(encoded(halves(), "PNG"), size=8, max_pixels=4096).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, I am text", r"not an image \(unknown format\)"),
        (b"<!DOCTYPE html><html>", r"not an image \(a web page\)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"%PDF-1.7", "a PDF"),
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "."),
        (png_of(0, 5, 8, 2, b""), "."),
        (b"P6 0 5 255\n", "."),
    ],
)
def test_reasons(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason) as caught:
        decode_image(data, size=16)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 200


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_truncated_files_are_unreadable(kind: str) -> None:
    data = encoded(photo(200, 150), kind)
    for part in (0.2, 0.6, 0.9):
        with pytest.raises(UnreadableError):
            decode_image(data[: int(part * len(data))], size=32)


def test_truncated_jpeg_says_so() -> None:
    data = encoded(photo(200, 150), "JPEG")
    with pytest.raises(UnreadableError, match="the file is truncated"):
        decode_image(data[: len(data) // 2], size=32)


def test_size_must_be_positive() -> None:
    with pytest.raises(UsageError, match="size is 0"):
        decode_image(b"", size=0)


BROKEN_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\xff\xff\xff\0\0\0\x01"


def odd_metadata() -> list[bytes]:
    """Readable pictures whose metadata makes Pillow warn."""
    jpeg = encoded(halves(), "JPEG", exif=BROKEN_EXIF, quality=95, subsampling=0)
    png = encoded(halves(), "PNG")
    actl = b"acTL" + bytes(8)
    odd = struct.pack(">I", 8) + actl + struct.pack(">I", zlib.crc32(actl))
    return [jpeg, png[:33] + odd + png[33:]]


def test_warnings_do_not_leak_and_do_not_decide() -> None:
    for data in odd_metadata():
        with pytest.warns(UserWarning, match=r"EXIF|APNG|Truncated"):
            Image.open(io.BytesIO(data)).getexif()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_halves(decode_image(data, size=64), 9)


def test_warnings_of_others_are_left_alone() -> None:
    decode_image(encoded(halves(), "PNG"), size=8)
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", UserWarning, stacklevel=1)
    before = len(warnings.filters)
    for _ in range(20):  # others may put filters in front again and again
        warnings.simplefilter("error", BytesWarning)
        decode_image(encoded(halves(), "PNG"), size=8)
    assert len(warnings.filters) <= before + 1


def test_threads_agree_with_one_thread() -> None:
    files = [
        *odd_metadata(),
        *(encoded(photo(120 + i, 90), ("JPEG", "PNG", "WEBP")[i % 3]) for i in range(30)),
    ]
    alone = [decode_image(data, size=48) for data in files]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            together = list(pool.map(lambda data: decode_image(data, size=48), files))
            assert all(map(np.array_equal, alone, together))


def samples() -> list[bytes]:
    small = photo(24, 18)
    files = [
        encoded(small, kind)
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
        if kind in decode._FORMATS and (kind != "AVIF" or features.check("avif"))
    ]
    files += [encoded(Image.fromarray(RAMP[:9, ::16]), kind) for kind in ("PNG", "TIFF", "PPM")]
    files += [encoded(small.quantize(7), "PNG", transparency=b"\0\x80")]
    files += [encoded(small, "TIFF", compression="tiff_lzw"), *odd_metadata()]
    files += [b"P3 2 2 255\n" + b"1 " * 12, b"P1\n2 2\n0101", b"PyP 2 2 255\n1234"]
    return files


SAMPLES = samples()


def decode_or_refuse(data: bytes) -> None:
    try:
        pixels = decode_image(data, size=16, max_pixels=1 << 20)
    except UnreadableError:
        return
    assert pixels.shape == (16, 16, 3)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(SAMPLES) - 1), st.data())
def test_mutated_files_never_raise_anything_else(index: int, data: st.DataObject) -> None:
    raw = bytearray(SAMPLES[index])
    for _ in range(data.draw(st.integers(1, 6))):
        # Headers matter most, so half of the mutations go there.
        limit = data.draw(st.sampled_from([64, len(raw)]))
        at = data.draw(st.integers(0, max(0, min(limit, len(raw)) - 1)))
        what = data.draw(st.sampled_from(["set", "cut", "insert", "drop", "long"]))
        if what == "set" and raw:
            raw[at] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del raw[max(at, 1) :]
        elif what == "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        elif what == "drop":
            del raw[at : at + 4]
        else:
            raw[at : at + 4] = b"\xff\xff\xff\x7f"
    decode_or_refuse(bytes(raw))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"P5 ", b"PyP "])
    | st.sampled_from([b"II*\0", b"MM\0*", b"RIFF\x20\0\0\0WEBPVP8 ", b"\0\0\0\x0cjP  \r\n\x87\n"]),
    st.binary(max_size=300),
)
@example(b"P", b"")
@example(b"BM", bytes(60))
def test_random_bytes_never_raise_anything_else(start: bytes, rest: bytes) -> None:
    decode_or_refuse(start + rest)
