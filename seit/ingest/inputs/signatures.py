"""Names of unsupported files by their first bytes.

A name with advice is a picture or sound in an unsupported format, and the advice says how to
convert it; a name without advice is neither.
"""

from typing import NamedTuple

from seit.modality import Modality


class Signature(NamedTuple):
    """Kind of file.

    Attributes:
        name: name in messages, with its article.
        advice: how to convert it; empty if it is neither picture nor sound.
    """

    name: str
    advice: str = ""


_TO_PICTURE = "convert it to JPEG, PNG or TIFF"
_TO_SOUND = "convert it to WAV or FLAC"
_FROM_VIDEO = "extract frames as JPEG or PNG, or the sound as WAV or FLAC, for example with ffmpeg"

CAMERA_RAW = Signature("a camera raw file", f"develop it: {_TO_PICTURE}")
_HEIC = Signature("a HEIC photo", f"{_TO_PICTURE}, for example with heif-convert or ImageMagick")
_JPEG_XL = Signature("a JPEG XL image", f"{_TO_PICTURE}, for example with djxl")
_VIDEO = Signature("a video", _FROM_VIDEO)
_M4A = Signature("an M4A or AAC sound", f"{_TO_SOUND}, for example with ffmpeg")
_WEB_PAGE = Signature("a web page")

_EXACT: tuple[tuple[bytes, Signature], ...] = (
    (b"\xff\x0a", _JPEG_XL),
    (b"\0\0\0\x0cJXL \r\n\x87\n", _JPEG_XL),
    (b"8BPS", Signature("a Photoshop document", _TO_PICTURE)),
    (b"gimp xcf", Signature("a GIMP document", _TO_PICTURE)),
    (b"II\xbc\x01", Signature("a JPEG XR image", _TO_PICTURE)),
    (b"IIRO", CAMERA_RAW),
    (b"IIRS", CAMERA_RAW),
    (b"MMOR", CAMERA_RAW),
    (b"IIU\0", CAMERA_RAW),
    (b"FUJIFILMCCD-RAW", CAMERA_RAW),
    (b"FOVb", CAMERA_RAW),
    (b"\0MRM", CAMERA_RAW),
    (b"v/1\x01", Signature("an OpenEXR image", _TO_PICTURE)),
    (b"#?RADIANCE", Signature("a Radiance HDR image", _TO_PICTURE)),
    (b"#?RGBE", Signature("a Radiance HDR image", _TO_PICTURE)),
    (b"DDS ", Signature("a DDS texture", _TO_PICTURE)),
    (b"\0\0\x01\0", Signature("an icon", _TO_PICTURE)),
    (b"\0\0\x02\0", Signature("a cursor", _TO_PICTURE)),
    (b"icns", Signature("an icon", _TO_PICTURE)),
    (b"qoif", Signature("a QOI image", _TO_PICTURE)),
    (b"P7\n", Signature("a PAM image", _TO_PICTURE)),
    (b"BPG\xfb", Signature("a BPG image", _TO_PICTURE)),
    (b"\x8aMNG", Signature("an MNG animation", _TO_PICTURE)),
    (b"\x8bJNG", Signature("a JNG image", _TO_PICTURE)),
    (b"SIMPLE  =", Signature("a FITS image", _TO_PICTURE)),
    (b"AT&TFORM", Signature("a DjVu document", _TO_PICTURE)),
    (b"#!AMR", Signature("an AMR sound", _TO_SOUND)),
    (b"#!SILK", Signature("a SILK sound", _TO_SOUND)),
    (b"\x02#!SILK", Signature("a SILK sound", _TO_SOUND)),
    (b"wvpk", Signature("a WavPack sound", _TO_SOUND)),
    (b"MAC ", Signature("a Monkey's Audio sound", _TO_SOUND)),
    (b"TTA1", Signature("a True Audio sound", _TO_SOUND)),
    (b"MPCK", Signature("a Musepack sound", _TO_SOUND)),
    (b"MP+", Signature("a Musepack sound", _TO_SOUND)),
    (b"DSD ", Signature("a DSD sound", _TO_SOUND)),
    (b"FRM8", Signature("a DSD sound", _TO_SOUND)),
    (b"ADIF", _M4A),
    (b"\x0bw", Signature("an AC-3 sound", _TO_SOUND)),
    (b"\x7f\xfe\x80\x01", Signature("a DTS sound", _TO_SOUND)),
    (b"ajkg", Signature("a Shorten sound", _TO_SOUND)),
    (b"MThd", Signature("a MIDI file", "render it to WAV or FLAC")),
    (
        b"0&\xb2u\x8ef\xcf\x11",
        Signature("a WMA or WMV file", f"{_TO_SOUND}, for example with ffmpeg"),
    ),
    (b"\x1aE\xdf\xa3", Signature("a Matroska or WebM file", _FROM_VIDEO)),
    (b"\0\0\x01\xba", _VIDEO),
    (b"\0\0\x01\xb3", _VIDEO),
    (b"FLV\x01", _VIDEO),
    (b"\0\x05\x16\x07", Signature("a side file of macOS (AppleDouble); delete it")),
    (b"\xd0\xcf\x11\xe0", Signature("a document or Thumbs.db of Windows")),
    (b"PK\x03\x04", Signature("a ZIP archive; unpack it")),
    (b"\x1f\x8b", Signature("a gzip archive; unpack it")),
    (b"7z\xbc\xaf", Signature("a 7z archive; unpack it")),
    (b"Rar!", Signature("a RAR archive; unpack it")),
    (b"\x89HDF", Signature("an HDF5 file; export what it holds")),
    (b"\x93NUMPY", Signature("a NumPy array; export it")),
)
_TEXTS: tuple[tuple[bytes, Signature], ...] = (
    (b"<!doctype html", _WEB_PAGE),
    (b"<html", _WEB_PAGE),
    (b"<?xml", Signature("an XML or SVG file")),
    (b"<svg", Signature("an SVG drawing; render it to PNG")),
    (b"%pdf", Signature("a PDF; render its pages to PNG")),
    (b"%!ps", Signature("PostScript; render its pages to PNG")),
    (b"version https://git-lfs", Signature("a Git LFS pointer; run `git lfs pull`")),
)
_PICTURES: tuple[tuple[bytes, Signature], ...] = (
    (b"\xff\xd8\xff", Signature("a JPEG image")),
    (b"\x89PNG", Signature("a PNG image")),
    (b"GIF8", Signature("a GIF image")),
    (b"II*\0", Signature("a TIFF image")),
    (b"MM\0*", Signature("a TIFF image")),
    (b"BM", Signature("a BMP image")),
)
_SOUNDS: tuple[tuple[bytes, Signature], ...] = (
    (b"fLaC", Signature("a FLAC sound")),
    (b"OggS", Signature("an Ogg sound")),
    (b"ID3", Signature("an MP3 sound")),
    (b"FORM", Signature("an AIFF sound")),
)
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_CONTAINERS = {b"WEBP": Signature("a WebP image"), b"WAVE": Signature("a WAV sound")}
_FTYP_BYTES = 256
_AAC_SYNC = (0xF1, 0xF9)


def find_signature(data: bytes) -> Signature | None:
    """Return the signature of an unsupported file; None if unknown."""
    if data[4:8] == b"ftyp":
        return _iso_signature(data)
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return _VIDEO
    if len(data) > 2 and data[0] == 0xFF and data[1] in _AAC_SYNC:
        return _M4A
    if data[128:132] == b"DICM":
        return Signature("a DICOM file", _TO_PICTURE)
    if data[-18:].startswith(b"TRUEVISION-XFILE"):
        return Signature("a TGA image", _TO_PICTURE)
    start = data[:64].lstrip().lower()
    found = (what for prefix, what in _EXACT if data.startswith(prefix))
    return next(found, None) or next((x for prefix, x in _TEXTS if start.startswith(prefix)), None)


def refusal(data: bytes, modality: Modality) -> str:
    """Return a one-line reason why bytes of an unknown format are not read."""
    found = find_signature(data)
    if found and found.advice:
        return f"{found.name} is not supported; {found.advice}"
    others = _SOUNDS if modality == "image" else _PICTURES
    found = found or next((what for prefix, what in others if data.startswith(prefix)), None)
    if not found and data[:4] == b"RIFF":
        found = _CONTAINERS.get(data[8:12])
    noun = "an image" if modality == "image" else "audio"
    return f"not {noun} ({found.name if found else 'unknown format'})"


def is_heic(data: bytes) -> bool:
    """Return True if an ISO file has HEIC as its first brand or among the others."""
    brands = _brands(data)
    return bool(brands & _HEIC_BRANDS) and not brands & _AVIF_BRANDS


def _brands(data: bytes) -> frozenset[bytes]:
    size = min(int.from_bytes(data[:4], "big"), _FTYP_BYTES, len(data))
    others = (data[at : at + 4] for at in range(16, size - 3, 4))
    return frozenset({data[8:12], *others}) if data[4:8] == b"ftyp" else frozenset()


def _iso_signature(data: bytes) -> Signature | None:
    brand = data[8:12]
    if is_heic(data):
        return _HEIC
    if brand == b"crx ":
        return CAMERA_RAW
    if brand in (b"M4A ", b"M4B ", b"M4P "):
        return _M4A
    if brand == b"jxl ":
        return _JPEG_XL
    return None if brand in (b"avif", b"avis", b"mif1", b"msf1") else _VIDEO
