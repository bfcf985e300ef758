"""Verdicts of very many pictures into Parquet: pictures per second, memory on the way, how long the
networks wait for pictures, bytes per row, and what one picture costs a core.

    python benchmarks/bench_batches.py [--judge FILE] [--pictures 100000] [--different 260]
                                       [--sides 256] [--workers 2] [--ray] [--costs]

Without a judge: a small one with random weights that gives scores from 64 pixels. The pictures are
`--different` JPEGs, cut from the sample's photographs, under as many names as asked for; they stay
in the operating system's memory, so that no disk is measured. Equal rows take next to no room: for
bytes per row let all be different. `--sides`: longer sides that they have, in turns. `--ray`: the
same through Ray afterwards, and the rows are compared. `--costs`: processor milliseconds of one
thread per picture, for decoding and for each head, by the processor's clock, which other work on
the machine disturbs less than a wall clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
from PIL import Image

from beholder import Judge
from beholder.batch.local import judge_to_file
from beholder.batch.output import identity_of
from beholder.batch.ray import judge_on_ray
from beholder.data.images import read_image
from beholder.judge.runner import Request

PHOTOS = Path(__file__).parents[1] / "src" / "beholder" / "data" / "sample" / "photos"
QUALITY, MARKS = 88, (0.1, 0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--different", type=int, default=260)
    parser.add_argument("--sides", type=int, nargs="+", default=[256])
    parser.add_argument("--workers", type=int, help="default: one per core")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--costs", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = arguments.judge or folder / "small.beholder"
        if arguments.judge is None:
            # a process of its own: PyTorch stays out of the memory that is measured
            subprocess.run([sys.executable, "-c", SMALL_JUDGE, str(model)], check=True)
        print(f"{os.cpu_count()} cores, {model.name}, {model.stat().st_size / 1e6:.1f} MB")
        if arguments.costs:
            show_costs(model, folder, arguments.sides)
            return
        files = write_pictures(folder / "pictures", arguments.different, arguments.sides)
        requests = [
            Request(f"{number:09}.jpg", files[number % len(files)])
            for number in range(arguments.pictures)
        ]
        rows = run_local(model, requests, folder / "local.parquet", arguments.workers)
        if arguments.ray:
            by_ray = run_ray(model, requests, folder / "ray.parquet", arguments.workers)
            print(f"the same rows: {by_ray.equals(rows)}")


def write_pictures(folder: Path, different: int, sides: Sequence[int]) -> list[Path]:
    """JPEGs of 4:3, cut from photographs at many places, mirrored at their seams."""
    folder.mkdir()
    photos = [read_image(path) for path in sorted(PHOTOS.glob("*.jpg"))]
    files = []
    for number in range(different):
        photo, side = photos[number % len(photos)], sides[number % len(sides)]
        left, top = number * 37 % (photo.width // 3), number * 17 % (photo.height // 3)
        part = photo.crop((left, top, photo.width, photo.height))
        picture = tile(part, (side, side * 3 // 4))
        files.append(folder / f"{number:03}.jpg")
        picture.save(files[-1], quality=QUALITY)
    print(f"{len(files)} JPEGs, {statistics.mean(f.stat().st_size for f in files) / 1e3:.1f} kB")
    return files


def tile(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The photograph beside its mirror image, as often as it takes: its detail stays."""
    picture = Image.new("RGB", size)
    flipped = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for column, left in enumerate(range(0, size[0], photo.width)):
        turned = flipped if column % 2 else photo
        upside = turned.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        for row, top in enumerate(range(0, size[1], photo.height)):
            picture.paste(upside if row % 2 else turned, (left, top))
    return picture


def run_local(
    model: Path, requests: Sequence[Request], output: Path, workers: int | None
) -> pl.DataFrame:
    watched = Watched(requests)
    busy = time.process_time()
    judge = Judge.load(model)
    done = judge_to_file(judge, watched, output, identity=identity_of(model), workers=workers)
    busy = time.process_time() - busy
    watched.note("written")
    print(f"local: {done}")
    print(f"  {1e3 * busy / len(requests):.2f} ms of a core per picture, all in all")
    for mark, (now, highest) in watched.memory.items():
        print(f"  {mark:>7}: {now:.0f} MB, at most so far {highest:.0f} MB")
    size = sum(part.stat().st_size for part in output.iterdir())
    print(f"  {size / len(requests):.1f} bytes per row in {len(list(output.iterdir()))} parts")
    return pl.read_parquet(output)


def run_ray(
    model: Path, requests: Sequence[Request], output: Path, workers: int | None
) -> pl.DataFrame:
    print(f"ray:   {judge_on_ray(model, requests, output, workers=workers)}")
    return pl.read_parquet(output)


class Watched(Sequence[Request]):
    """Requests that note this process's memory when some shares of them were handed out."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = requests
        self.memory: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.requests[index]

    def __iter__(self) -> Iterator[Request]:
        if "read" not in self.memory:  # the first time their names are hashed
            self.note("read")
            yield from self.requests
            return
        marks = {max(1, int(share * len(self))): f"{share:.0%}" for share in MARKS}
        for count, request in enumerate(self.requests, start=1):
            yield request
            if count in marks:
                self.note(marks[count])

    def note(self, mark: str) -> None:
        status = Path("/proc/self/status").read_text()
        now, highest = (int(status.split(f"{name}:")[1].split()[0]) for name in ("VmRSS", "VmHWM"))
        self.memory[mark] = (now / 1024, highest / 1024)


def show_costs(model: Path, folder: Path, sides: Sequence[int], repeats: int = 5) -> None:
    """Processor milliseconds per picture of one thread: decoding at each size, the networks."""
    judge = Judge.load(model, threads=1)
    prepared = []
    for side in sides:
        files = write_pictures(folder / str(side), 26, [side])
        prepared = [judge.prepare(file) for file in files]
        taken = [processor(lambda: [judge.prepare(f) for f in files]) for _ in range(repeats)]  # noqa: B023
        show(f"decode {side} x {side * 3 // 4}", taken, len(files))
    batch = prepared[:16]
    names = [str(number) for number in range(len(batch))]
    beams = judge.beam_size
    for what, size in (("trunk and heads", None), (f"the same and a comment, beam {beams}", beams)):
        judge.beam_size = size
        if size is not None and judge.vocabulary is None:
            break
        judge.verdicts(names, batch)
        taken = [processor(lambda: judge.verdicts(names, batch)) for _ in range(repeats)]
        show(what, taken, len(batch))


def processor(work) -> float:  # type: ignore[no-untyped-def]
    start = time.process_time()
    work()
    return time.process_time() - start


def show(what: str, taken: Sequence[float], pictures: int) -> None:
    milliseconds = sorted(1e3 * seconds / pictures for seconds in taken)
    middle = statistics.median(milliseconds)
    print(
        f"  {what:<36} {middle:7.2f} ms of a core ({milliseconds[0]:.2f} to {milliseconds[-1]:.2f})"
    )


SMALL_JUDGE = """
import sys
from pathlib import Path
import torch
from beholder.export.judge_file import pack, versions
from beholder.export.graphs import judge_graphs
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.store.folder import Stored
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.store.packed import CARD, write_packed
from beholder.models.config import HeadConfig

torch.manual_seed(0)
backbone = create_backbone(
    BackboneConfig(name="timm/test_efficientnet", weights="random", size=64)
)
config = JudgeConfig(
    backbone=backbone.config, pooled_dim=backbone.pooled_dim, token_dim=backbone.token_dim,
    score=HeadConfig(), score_range=(1.0, 5.0),
)
stored = Stored(JudgeModel(config, backbone).eval(), 1)
version = next(versions(stored, judge_graphs(stored.model), "fp32"))
manifest, members = pack(stored, version, "fp32")
write_packed(Path(sys.argv[1]), manifest, {**members, CARD: b""})
"""

if __name__ == "__main__":
    main()
