"""The same work on a local Ray cluster: the rows of the local engine, whatever dies in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from beholder.batch import ray as on_ray
from beholder.batch.local import judge_to_file
from beholder.batch.output import Parts, claim, identity_of
from beholder.batch.ray import judge_on_ray
from beholder.batch.requests import listed_pictures
from beholder.cli import main
from beholder.errors import ClusterError, DeviceError, MissingExtra, OutputError
from beholder.judge import Judge

NAMES = [f"{number % 23:02}.jpg" for number in range(250)]
BROKEN = {"07.jpg": "not_a_picture", "22.jpg": "missing"}


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 250 pictures, which take some 10 ms each to decode; two of 23 are none."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number in range(22):
        level = generator.integers(0, 255, (40, 50, 3)).astype(np.uint8) // 8 + number * 10
        Image.fromarray(level).resize((1200, 900)).save(root / f"{number:02}.jpg")
    (root / "07.jpg").write_bytes(b"not a picture")
    pl.DataFrame({"image": NAMES}).write_parquet(root / "list.parquet")
    return root / "list.parquet"


@pytest.fixture(scope="module")
def expected(judge: Path, listed: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """What the local engine says."""
    output = tmp_path_factory.mktemp("local") / "verdicts.parquet"
    requests = listed_pictures(listed)
    judge_to_file(Judge.load(judge), requests, output, identity=identity_of(judge))
    frame = rows(output)
    assert frame["image"].to_list() == NAMES
    assert frame["score"].n_unique() == 22  # one of them is null
    return frame


def rows(output: Path) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(part) for part in sorted(output.glob("part-*")))


def command(judge: Path, listed: Path, output: Path) -> list[str]:
    arguments = ["judge", judge, "--list", listed, "--output", output, "--engine", "ray"]
    return [sys.executable, "-m", "beholder", *map(str, arguments), "--workers", "2"]


def workers_of(pid: int) -> list[int]:
    """Processes that judge, of all that a process has started."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
    ]
    workers = [child for child in children if b"MapWorker" in command_line(child)]
    return workers + [worker for child in children for worker in workers_of(child)]


def command_line(pid: int) -> bytes:
    """Empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def wait_for_parts(process: subprocess.Popen[str], output: Path) -> None:
    while not list(output.glob("part-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def check_whole(output: Path, expected: pl.DataFrame) -> None:
    written = rows(output)
    assert written.schema == expected.schema
    assert written.equals(expected)
    assert [path.name for path in sorted(output.iterdir())] == [
        f"part-{number:08}.parquet" for number in range(16)
    ]
    quarantine = pl.read_csv(output.with_name(f"{output.name}.quarantine.csv"))
    unusable = [name for name in NAMES if name in BROKEN]
    assert quarantine["image"].to_list() == unusable
    assert quarantine["code"].to_list() == [BROKEN[name] for name in unusable]


def test_a_killed_worker_costs_nothing(
    judge: Path, listed: Path, expected: pl.DataFrame, tmp_path: Path
) -> None:
    output = tmp_path / "verdicts.parquet"
    with subprocess.Popen(
        command(judge, listed, output), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for_parts(process, output)
        workers = workers_of(process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert len(list(output.glob("part-*"))) < 16
        out, err = process.communicate()
    assert process.returncode == 1, err  # some pictures could not be judged
    assert "250 pictures; 21 could not be judged" in out
    check_whole(output, expected)


@pytest.mark.slow
def test_a_killed_driver_is_gone_on_with(
    judge: Path, listed: Path, expected: pl.DataFrame, tmp_path: Path
) -> None:
    output = tmp_path / "verdicts.parquet"
    arguments = command(judge, listed, output)
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        wait_for_parts(run, output)
        workers = workers_of(run.pid)
        run.kill()
    deadline = time.monotonic() + 60
    while any(b"MapWorker" in command_line(pid) for pid in workers):
        assert time.monotonic() < deadline, "the workers outlive their driver"
        time.sleep(0.1)
    before = {part: part.stat() for part in output.glob("part-*")}
    judged = sum(len(pl.read_parquet(part)) for part in before)
    assert 0 < judged < len(NAMES)
    again = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert f"250 pictures, {judged} of them before; 21 could not" in again.stdout, again.stderr
    check_whole(output, expected)
    for part, stat in before.items():
        now = part.stat()
        assert (now.st_ino, now.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


def first_part(
    judge: Path, listed: Path, output: Path, identity: str = ""
) -> tuple[on_ray._Worker, pa.Table]:
    """A worker, here in this process, and 20 pictures as it gets them."""
    output.mkdir()
    job = on_ray._Job(str(judge), identity or identity_of(judge), str(output), 16)
    (part,) = on_ray._left(
        listed_pictures(listed)[:20], Parts(output, {"half": ("dark", "bright")}), 1000
    )
    return on_ray._Worker(job), pa.Table.from_pylist([part])


def test_a_part_that_kills_its_workers_is_given_up(
    judge: Path, listed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "verdicts.parquet"
    worker, part = first_part(judge, listed, output)
    worker.parts.tried(0).write_bytes(b"." * on_ray.TRIES)
    (row,) = worker(part).to_pylist()
    what, where, _ = json.loads(row["error"])
    assert "died 3 times" in what and where == "00.jpg to 19.jpg"
    assert row["rows"] == 0 and not worker.parts.part(0).exists()
    worker.parts.open(NAMES, 20)  # as the next call does
    (row,) = worker(part).to_pylist()
    assert row["rows"] == 20 and row["error"] == ""
    assert [path.name for path in output.iterdir()] == ["part-00000000.parquet"]


def test_a_part_is_not_judged_twice(judge: Path, listed: Path, tmp_path: Path) -> None:
    """Its worker has died after writing, before telling."""
    worker, part = first_part(judge, listed, tmp_path / "verdicts.parquet")
    worker(part)
    before = worker.parts.part(0).stat()
    (row,) = worker(part).to_pylist()
    assert row["rows"] == 20 and row["busy"] == 0
    assert worker.parts.part(0).stat().st_ino == before.st_ino


def test_a_worker_refuses_another_judge(judge: Path, listed: Path, tmp_path: Path) -> None:
    worker, part = first_part(judge, listed, tmp_path / "verdicts.parquet", "of another")
    (row,) = worker(part).to_pylist()
    what, where, _ = json.loads(row["error"])
    assert "another judge" in what and where.startswith(str(judge))


@pytest.mark.parametrize(
    ("pictures", "workers", "batch_size", "rows"),
    [(250, 2, 16, 16), (10_000_000, 64, 16, 1024), (3, 2, 16, 16), (20_000, 4, 32, 640),
     (10**6, 2, 12, 1032), (10**6, 2, 4000, 4000)],
)  # fmt: skip
def test_parts_are_whole_batches_for_every_worker(
    pictures: int, workers: int, batch_size: int, rows: int
) -> None:
    assert on_ray._rows_of_part(pictures, workers, batch_size) == rows


@pytest.mark.parametrize(
    ("address", "reason"),
    [("127.0.0.1:1", "refused"), ("somewhere", "not HOST:PORT"), ("ray://a:1", "not HOST:PORT"),
     ("127.0.0.1:99999", "not HOST:PORT")],
)  # fmt: skip
def test_a_cluster_that_is_not_there_is_told(
    judge: Path, listed: Path, tmp_path: Path, address: str, reason: str
) -> None:
    output = tmp_path / "verdicts.parquet"
    with pytest.raises(ClusterError, match=reason):
        judge_on_ray(judge, listed_pictures(listed), output, address=address)
    assert list(tmp_path.iterdir()) == []


def test_without_ray_it_is_told_how_to_install_it(
    judge: Path, listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match="needs the `ray` extra"):
        judge_on_ray(judge, listed_pictures(listed), tmp_path / "verdicts.parquet")
    assert list(tmp_path.iterdir()) == []


def test_engines_do_not_go_on_with_each_other(judge: Path, listed: Path, tmp_path: Path) -> None:
    requests = listed_pictures(listed)[:5]
    output = tmp_path / "verdicts.parquet"
    claim(output, identity_of(judge), requests, engine="ray", rows=16)
    output.mkdir()
    with pytest.raises(OutputError, match="another engine"):
        judge_to_file(Judge.load(judge), requests, output, identity=identity_of(judge))
    assert claim(output, identity_of(judge), requests, engine="ray", rows=99).rows == 16


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_workers_judge_on_the_gpus_that_ray_gives_them(
    judge: Path, listed: Path, expected: pl.DataFrame, tmp_path: Path, share: float
) -> None:
    """The cluster says that it has two; the judge is loaded on the CPU in their place."""
    import ray

    notes = tmp_path / "notes"
    notes.mkdir()

    def note_devices() -> None:
        """In every worker, before it works."""
        from beholder.judge import Judge

        load = Judge.load

        def load_and_note(model: str, device: str, **options: object) -> Judge:
            seen = f"{device} {os.environ.get('CUDA_VISIBLE_DEVICES')}"
            (notes / str(os.getpid())).write_text(seen)
            return load(model, "cpu", **options)

        Judge.load = load_and_note  # type: ignore[method-assign]

    environment = {"worker_process_setup_hook": note_devices}
    ray.init(
        "local", num_cpus=2, num_gpus=2, include_dashboard=False, logging_level="ERROR",
        log_to_driver=False, runtime_env=environment,
    )  # fmt: skip
    try:
        output = tmp_path / "verdicts.parquet"
        judge_on_ray(judge, listed_pictures(listed), output, gpus_per_worker=share, workers=2)
    finally:
        ray.shutdown()
    assert rows(output).equals(expected)
    seen = [note.read_text() for note in notes.iterdir()]
    assert len(seen) == 2
    if share == 1:  # each has its own; of halves, both may be of one
        assert sorted(seen) == ["cuda 0", "cuda 1"]
    assert set(seen) <= {"cuda 0", "cuda 1"}


@pytest.mark.parametrize(
    ("resources", "workers", "gpus", "count"),
    [({"CPU": 8}, None, 0, 8), ({"CPU": 8}, 3, 0, 3), ({"CPU": 8, "GPU": 2}, None, 1, 2),
     ({"CPU": 8, "GPU": 2}, None, 0.5, 4), ({"CPU": 2, "GPU": 2}, None, 0.5, 2),
     ({"CPU": 8, "GPU": 2}, None, 1 / 3, 6), ({"CPU": 8, "GPU": 2}, None, 0.6, 2),
     ({"CPU": 8, "GPU": 5}, None, 2, 2)],
)  # fmt: skip
def test_there_are_as_many_workers_as_gpus_for_them(
    resources: dict[str, float], workers: int | None, gpus: float, count: int
) -> None:
    assert on_ray._count_workers(resources, workers, gpus) == count


@pytest.mark.parametrize(("resources", "workers"), [({"CPU": 8}, None), ({"GPU": 2.0}, 3)])
def test_too_few_gpus_are_told_and_not_waited_for(
    resources: dict[str, float], workers: int | None
) -> None:
    with pytest.raises(ClusterError, match="GPUs, too few for"):
        on_ray._count_workers(resources, workers, 1)


@pytest.mark.parametrize(
    ("device", "gpus", "backend", "says"),
    [("cuda", 0, None, "see no GPU for 'cuda'"), ("cpu", 1, None, "on cpu has no use for a GPU"),
     (None, 1, "openvino", "with OpenVINO has no use"), (None, 1.5, None, "can't have 1.5 GPUs")],
)  # fmt: skip
def test_gpus_and_devices_that_contradict_each_other(
    device: str | None, gpus: float, backend: str | None, says: str, judge: Path, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError, match=says):
        judge_on_ray(
            judge, [], tmp_path / "verdicts.parquet", device=device, gpus_per_worker=gpus,
            backend=backend,  # type: ignore[arg-type]
        )  # fmt: skip


def test_gpus_go_with_ray(judge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["judge", str(judge), "picture.jpg", "--gpus-per-worker", "1"])
    assert "--gpus-per-worker goes with --engine ray" in capsys.readouterr().err
