"""Pictures that are no photographs, for `bench_familiarity.py`; nothing is learnt from them.

Made or fetched at run time into a cache folder, never part of the project:

- drawings: every eighth of npm's `@lobehub/fluent-emoji-3d` (MIT), on white;
- screenshots: the pages of npm's `tabler-ui` and `startbootstrap-sb-admin-2` (MIT), as headless
  Chromium shows them, at three sizes of window;
- text pages: made-up words, set by Pillow in one or two columns;
- plots: lines, bars, heaps of points and matrices, drawn by matplotlib;
- scans: slices of the head and means through it, which look like X-rays, of the template that
  PyPI's `nilearn` brings (ICBM 2009a, its licence is in the package);
- noise: independent grey or coloured pixels, uniform or normal.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from beholder.data.files import atomic_path
from beholder.data.images import read_image
from beholder.data.progress import progress
from beholder.errors import DataError
from quality_photos import Named, npm_unpacked

EMOJI = "@lobehub/fluent-emoji-3d@1.1.0"
PAGES = {"tabler-ui@0.0.34": "dist", "startbootstrap-sb-admin-2@4.1.4": "."}
WINDOWS = ((1280, 800), (820, 1180), (414, 896))
EVERY = 8  # emoji of one group look alike
PLAIN = 120  # pictures of each kind that is made
SCANS = "nilearn==0.14.1"
TEMPLATE = "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def strange_pictures(cache: Path) -> dict[str, list[Path]]:
    """The files of every kind, made where the cache lacks them.

    Raises:
        DataError: a package can't be fetched, or there is no Chromium.
    """
    makers: dict[str, Callable[[Path], Iterator[Named]]] = {
        "drawings": _drawings,
        "screenshots": _screenshots,
        "text pages": _text_pages,
        "plots": _plots,
        "scans": _scans,
        "noise": _noise,
    }
    files = {}
    for kind, make in makers.items():
        folder = cache / f"strange-{kind.replace(' ', '-')}"
        if not folder.is_dir():
            with atomic_path(folder) as part:
                part.mkdir()
                for name, image in progress(make(cache / "packages"), kind):
                    image.convert("RGB").save(part / f"{name}.png")
        files[kind] = sorted(folder.glob("*.png"))
    return files


def _drawings(packages: Path) -> Iterator[Named]:
    files = sorted(npm_unpacked(EMOJI, packages / "npm").rglob("assets/*.webp"))
    for file in files[::EVERY]:
        yield file.stem, read_image(file)


def _screenshots(packages: Path) -> Iterator[Named]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise DataError("There is no Chromium on the PATH.", fix="apt install chromium")
    for package, folder in PAGES.items():
        root = npm_unpacked(package, packages / "npm") / folder
        for number, page in enumerate(sorted(root.glob("*.html"))):
            width, height = WINDOWS[number % len(WINDOWS)]
            shot = packages / "screenshot.png"
            subprocess.run(
                [
                    browser, "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu",
                    "--virtual-time-budget=3000", f"--window-size={width},{height}",
                    "--host-resolver-rules=MAP * ~NOTFOUND", f"--screenshot={shot}",
                    page.as_uri(),
                ],
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip
            yield f"{package.partition('@')[0]}-{page.stem}", read_image(shot)
            shot.unlink()


def _text_pages(packages: Path) -> Iterator[Named]:
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    for number in range(PLAIN):
        draws = np.random.default_rng(number)
        width, height = (int(side) for side in draws.integers((600, 800), (1000, 1400)))
        paper = int(draws.integers(235, 256))
        image = Image.new("RGB", (width, height), (paper, paper, paper - int(draws.integers(12))))
        pen, size = ImageDraw.Draw(image), int(draws.integers(11, 26))
        font = ImageFont.load_default(size)
        columns = int(draws.integers(1, 3))
        wide = (width - 40 * (columns + 1)) // columns
        for column in range(columns):
            left = 40 + column * (wide + 40)
            for top in range(50, height - 60, int(size * 1.4)):
                if draws.random() < 0.08:
                    continue  # between paragraphs
                line = ""
                while font.getlength(line) < wide * 0.94:
                    line += "".join(draws.choice(letters, draws.integers(2, 10))) + " "
                while font.getlength(line) > wide:
                    line = line[:-1]
                pen.text((left, top), line, fill=(int(draws.integers(60)),) * 3, font=font)
        yield f"text-{number:03}", image


def _plots(packages: Path) -> Iterator[Named]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    for number in range(PLAIN):
        draws = np.random.default_rng(number)
        figure = Figure(figsize=tuple(draws.uniform(4, 9, 2)), dpi=100)
        axes = figure.subplots()
        values = draws.normal(size=(3, 40)).cumsum(axis=1)
        kind = number % 4
        if kind == 0:
            axes.plot(values.T)
        elif kind == 1:
            axes.bar(range(12), np.abs(values[0, :12]))
        elif kind == 2:
            axes.scatter(*draws.normal(size=(2, 300)), s=8)
        else:
            axes.imshow(draws.random((12, 12)))
        axes.set(title=f"Series {number}", xlabel="time", ylabel="value")
        axes.grid(bool(number % 2) and kind < 3)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        yield f"plot-{number:03}", Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _scans(packages: Path) -> Iterator[Named]:
    volume = _template(packages)
    for axis in range(3):
        side = volume.shape[axis]
        for at in range(side // 5, side - side // 5, 6):
            yield f"slice-{axis}-{at:03}", _grey(volume.take(at, axis))
        for first in range(0, side - side // 2, 24):
            through = volume.take(range(first, first + side // 2), axis).mean(axis)
            yield f"through-{axis}-{first:03}", _grey(through)


def _template(packages: Path) -> NDArray[np.float32]:
    """The head's volume [x, y, z], read from the wheel without installing it."""
    folder = packages / "pip"
    if not list(folder.glob("nilearn*.whl")):
        done = subprocess.run(
            ["pip", "download", "--quiet", "--no-deps", "--dest", folder, SCANS],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise DataError(f"{SCANS} can't be fetched: {done.stderr.strip()}")
    with zipfile.ZipFile(next(folder.glob("nilearn*.whl"))) as wheel:
        content = gzip.decompress(wheel.read(TEMPLATE))
    # NIfTI-1: sizes at byte 40, type at 70, where the voxels begin at 108
    sizes = np.frombuffer(content, "<i2", 4, 40)[1:]
    kind = {2: "u1", 4: "<i2", 16: "<f4"}[int(np.frombuffer(content, "<i2", 1, 70)[0])]
    start = int(np.frombuffer(content, "<f4", 1, 108)[0])
    voxels = np.frombuffer(content, kind, int(np.prod(sizes)), start)
    return voxels.reshape(sizes, order="F").astype(np.float32)


def _grey(values: NDArray[np.float32]) -> Image.Image:
    shown = np.clip(values / np.percentile(values, 99.5), 0, 1) * 255
    image = Image.fromarray(np.rot90(shown).astype(np.uint8))
    scale = 480 / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)))


def _noise(packages: Path) -> Iterator[Named]:
    for number in range(PLAIN):
        draws = np.random.default_rng(number)
        shape = (*(int(side) for side in draws.integers(300, 600, 2)), 3 if number % 2 else 1)
        if number % 4 < 2:
            values = draws.uniform(0, 255, shape)
        else:
            values = draws.normal(128, draws.uniform(20, 80), shape)
        grains = np.broadcast_to(np.clip(values, 0, 255), (*shape[:2], 3)).astype(np.uint8)
        yield f"noise-{number:03}", Image.fromarray(grains)
