"""The only place in the project that opens a picture.

Training, prediction and serving get the same RGB pixels from `read_image`: the first frame, turned
upright by its EXIF orientation, converted by the rules of `beholder.data.colours`. What can't be
used raises a `PictureError` whose `code` says why; nothing is replaced or clipped silently.

The format is recognised by content, never by the file's name: JPEG, PNG, WebP, BMP, TIFF and GIF.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from PIL import Image, ImageFile, UnidentifiedImageError

from beholder.data import files
from beholder.data.colours import to_rgb8
from beholder.data.signatures import is_cut_off, recognise
from beholder.errors import MachineError, PictureError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
# endings of pictures in a folder; whether a file really is a picture depends on its content
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MAX_PIXELS = 50_000_000
# a reduced JPEG keeps at least this many times the pixels per side that the caller asks for
REDUCTION_MARGIN = 2

Source = str | Path | bytes | Image.Image
Result = TypeVar("Result")

# what says nothing of a file: too many are open, no memory, a disk or a drive of the network fails
_OF_THE_MACHINE = frozenset(
    {
        errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ENXIO, errno.ENODEV,
        errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    }
)  # fmt: skip
_PAUSES = (0.05, 0.2, 1.0)  # seconds before it is tried again

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SETTLED_NS = 2_000_000_000
_FIX_FORMAT = "Convert it to JPEG, PNG, WebP, BMP, TIFF or GIF."


class PictureHeader(NamedTuple):
    """What a picture's header says.

    size: (width, height) in pixels of the upright picture, as `read_image` returns it.
    mode: Pillow's name of the stored pixels, e.g. "RGB", "CMYK", "I;16".
    format: one of `FORMATS`.
    """

    size: tuple[int, int]
    mode: str
    format: str


def read_image(
    source: Source, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None
) -> Image.Image:
    """The picture as upright 8-bit RGB, without metadata.

    Args:
        source: a path, the bytes of a file, or a PIL picture (its current frame; it is not
            changed).
        max_pixels: larger pictures are refused from the header, before any pixel is decoded.
        at_least: pixels of the shorter side that the caller needs. A JPEG much larger than that is
            decoded at 1/2, 1/4 or 1/8 of its size, its shorter side staying at least twice
            `at_least`. None: always decoded in full, which pixel boxes and native crops need; a PIL
            picture always is.

    Raises:
        PictureError: `missing`, `unreadable` (no permission, damaged), `truncated`, `empty`,
            `not_a_picture`, `format` (a format that is not read), `too_large`, `too_small` (no
            pixels).
    """
    assert at_least is None or at_least >= 1, at_least
    with _opened(source, max_pixels) as image:
        # the caller's own picture would stay reduced
        ours = image is not source
        if at_least is not None and ours and image.format in ("JPEG", "MPO"):
            side = REDUCTION_MARGIN * at_least
            image.draft(None, (side, side))
        _scale_png_key(image)
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        rgb = to_rgb8(image)
        return rgb if turn is None else rgb.transpose(turn)


def read_header(source: str | Path | bytes, *, max_pixels: int | None = None) -> PictureHeader:
    """Size, mode and format, without decoding a pixel.

    An orientation that a PNG writes behind its pixels is not seen.

    Args:
        max_pixels: None reports any size that Pillow opens (up to about 179 megapixels).

    Raises:
        PictureError: as `read_image`, where the header shows it.
    """
    with _opened(source, max_pixels) as image:
        width, height = image.size
        # Pillow swaps the sides of a TIFF by itself
        if image.format != "TIFF" and _orientation(image) >= 5:
            width, height = height, width
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        return PictureHeader((width, height), image.mode, kind)


def resolve_key(root: str | Path, key: str) -> Path:
    """The path of an image key under the image root.

    The key may differ from the name on disk in its Unicode form (NFC or NFD). Links inside the
    root may point elsewhere: they are the user's own.

    Raises:
        PictureError: `outside_root` if the key is absolute or climbs; `missing` if nothing is
            there.
    """
    root = Path(root)
    parts = key.replace("\\", "/").split("/")
    absolute = parts[0] == "" or (len(parts[0]) == 2 and parts[0][1] == ":")
    if absolute or ".." in parts or "\0" in key:
        raise PictureError(
            f"The image key {key!r} leads out of the image root.",
            code="outside_root",
            where=str(root),
            fix="Keys are paths relative to the image root, without `..`.",
        )
    for name in dict.fromkeys((key, unicodedata.normalize("NFD", key))):
        candidate = root / name
        if os.path.lexists(candidate):
            return candidate
    path = None if key.isascii() else _find_normalised(root, key)
    if path is None:
        raise PictureError(
            f"There is no picture {key!r}.",
            code="missing",
            where=str(root),
            fix="Check the image root and the image key.",
        )
    return path


def content_hash(path: str | Path) -> str:
    """The SHA-256 of the file's bytes, in hex.

    Raises:
        MachineError: the machine can't read files at the moment.
        PictureError: `missing`, `not_a_picture` (a folder) or `unreadable`.
    """
    with _stream_of(Path(path)):
        return _patiently(lambda: files.sha256_file(path), str(path))


@contextmanager
def _opened(source: Source, max_pixels: int | None) -> Iterator[Image.Image]:
    """The picture, header read; whatever Pillow raises inside becomes a `PictureError`."""
    if isinstance(source, Image.Image):
        with _explained(f"<{type(source).__name__}>", None):
            _check_size(source, max_pixels)
            yield source
        return
    name = f"<{len(source)} bytes>" if isinstance(source, bytes) else str(source)
    with _stream_of(source) as stream, _explained(name, stream):
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            # some libraries switch this on for the process; missing rows would come back gray
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        with Image.open(stream, formats=FORMATS) as image:
            _check_size(image, max_pixels)
            yield image


def _stream_of(source: str | Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        stream: BinaryIO = io.BytesIO(source)
        name, length = "<bytes>", len(source)
    else:
        path, name = Path(source), str(source)
        try:
            if path.exists() and not path.is_file():
                raise PictureError(
                    f"{path.name or path} is not a file.", code="not_a_picture", where=name
                )
            stream = _patiently(lambda: path.open("rb"), name)
            length = os.fstat(stream.fileno()).st_size
        except FileNotFoundError as error:
            raise PictureError(
                f"There is no file {path.name}.", code="missing", where=name
            ) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise PictureError(
                f"{path.name} can't be read: {reason}.", code="unreadable", where=name
            ) from error
    if length == 0:
        stream.close()
        raise PictureError("The file is empty (0 bytes).", code="empty", where=name)
    return stream


def _patiently(work: Callable[[], Result], name: str) -> Result:
    """Do it, and a few times again when the machine refuses.

    Raises:
        MachineError: it refuses still.
    """
    pauses = iter(_PAUSES)
    while True:
        try:
            return work()
        except OSError as error:
            if _of_the_machine(error) is None:
                raise
            pause = next(pauses, None)
            if pause is None:
                raise _not_now(error, name) from error
        time.sleep(pause)


def _of_the_machine(error: BaseException | None) -> OSError | None:
    """The operating system's refusal that an error comes from, if the file is not to blame."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            return error
        error = error.__cause__ or error.__context__
    return None


def _not_now(error: OSError, name: str) -> MachineError:
    return MachineError(
        f"Files can't be read at the moment: {error.strerror or error}.",
        where=name,
        fix="Free what is short, or check the disk, and run the same command again: what was "
        "finished before is kept.",
    )


def _check_size(image: Image.Image, max_pixels: int | None) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise PictureError(f"The picture has no pixels ({width}x{height}).", code="too_small")
    if max_pixels is not None and width * height > max_pixels:
        raise PictureError(
            f"The picture has {width * height / 1e6:.1f} megapixels ({width}x{height}), more than "
            f"{max_pixels / 1e6:.0f}.",
            code="too_large",
            fix="Make it smaller.",
        )


@contextmanager
def _explained(name: str, stream: BinaryIO | None) -> Iterator[None]:
    try:
        yield
    except PictureError as error:
        error.where = error.where or name
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(
            f"The picture is far too large: {str(error).split(',')[0].lower()}.",
            code="too_large",
            where=name,
            fix="Make it smaller.",
        ) from error
    except UnidentifiedImageError as error:
        raise _unidentified(name, stream) from error
    except Exception as error:
        refusal = _of_the_machine(error)
        if refusal is not None:
            raise _not_now(refusal, name) from error
        # a damaged or hostile file can make Pillow raise nearly anything
        raise _damaged(error, name, stream) from error


def _unidentified(name: str, stream: BinaryIO | None) -> PictureError:
    known = recognise(stream) if stream is not None else None
    if known in FORMATS and stream is not None:
        if is_cut_off(known, stream):
            return PictureError(f"The {known} file is cut off.", code="truncated", where=name)
        return PictureError(
            f"The {known} file is damaged, or of a kind that is not supported.",
            code="unreadable",
            where=name,
            fix="Save it again as 8-bit RGB.",
        )
    if known is not None:
        return PictureError(
            f"{known} files are not supported.", code="format", where=name, fix=_FIX_FORMAT
        )
    return PictureError(
        "The file is not a picture of a known format.",
        code="not_a_picture",
        where=name,
        fix=_FIX_FORMAT,
    )


def _damaged(error: Exception, name: str, stream: BinaryIO | None) -> PictureError:
    reason = str(error) or type(error).__name__
    if "too large for PngImagePlugin" in reason:
        return PictureError(
            "The PNG holds a text or profile that unpacks to an unreasonable size.",
            code="too_large",
            where=name,
            fix="Save the picture again without metadata.",
        )
    known = recognise(stream) if stream is not None else None
    cut_off = known is not None and stream is not None and is_cut_off(known, stream)
    if cut_off or "truncat" in reason.lower():
        return PictureError(f"The picture is cut off: {reason}.", code="truncated", where=name)
    return PictureError(f"The picture is damaged: {reason}.", code="unreadable", where=name)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1..8; 1 where there is none or it can't be read.

    A broken EXIF block says nothing about the pixels, so it does not make a picture unusable.
    """
    # Pillow would decode a whole PNG to look for EXIF behind the pixels
    if image.format == "PNG" and "exif" not in image.info and _has_tiles(image):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1
    return value if value in _UPRIGHT else 1


def _has_tiles(image: Image.Image) -> bool:
    """Whether the pixels have not been decoded yet."""
    return bool(getattr(image, "tile", None))


def _scale_png_key(image: Image.Image) -> None:
    """Bring the transparent colour of a PNG to 8 bits; Pillow leaves it at the file's depth.

    The pixels of a 2- or 4-bit gray PNG are stretched to 0..255 when decoded, and those of a
    16-bit RGB keep their high byte.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or key is None or not _has_tiles(image):
        return
    arguments = image.tile[0].args  # type: ignore[attr-defined]
    raw_mode = arguments if isinstance(arguments, str) else arguments[0]
    if raw_mode in ("L;2", "L;4"):
        image.info["transparency"] = key * (85 if raw_mode == "L;2" else 17)
    elif raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _find_normalised(root: Path, key: str) -> Path | None:
    """Walk down from `root`, comparing the names of each folder in NFC."""
    path = root
    for part in key.split("/"):
        if os.path.lexists(path / part):
            path = path / part
            continue
        try:
            changed = path.stat().st_mtime_ns
            # a name may still come within the same tick of the clock: such a listing isn't kept
            settled = time.time_ns() - changed > _SETTLED_NS
            names = (_names_in_nfc if settled else _names_in_nfc.__wrapped__)(path, changed)
        except OSError:
            return None
        name = names.get(unicodedata.normalize("NFC", part))
        if name is None:
            return None
        path = path / name
    return path


@lru_cache(maxsize=64)
def _names_in_nfc(folder: Path, changed: int) -> dict[str, str]:
    """NFC name -> name on disk, the first of several, of a folder last changed at `changed`.

    Kept: thousands of missing pictures would otherwise list their folder thousands of times.
    """
    names: dict[str, str] = {}
    for name in sorted(path.name for path in folder.iterdir()):
        names.setdefault(unicodedata.normalize("NFC", name), name)
    return names
