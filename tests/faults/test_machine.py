"""What the machine refuses is tried again, and then ends the work; it is never kept as the fault of
a picture."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from brightness_judge import make_judge
from PIL import Image

from beholder.batch.local import judge_to_file
from beholder.batch.requests import find_pictures
from beholder.data import images
from beholder.data.fingerprints import fingerprint
from beholder.data.images import content_hash, read_header, read_image
from beholder.errors import MachineError, PictureError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    root.mkdir()
    for number in range(6):
        Image.effect_noise((60, 60), 90).convert("RGB").save(root / f"{number}.png")
    (root / "5.png").write_bytes(b"no picture")
    return root


@contextmanager
def no_file_can_be_opened() -> Iterator[None]:
    """There are as many open files as there may be."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("read", [read_image, read_header, content_hash])
def test_too_many_open_files_are_told(read, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    waited: list[float] = []
    monkeypatch.setattr(images.time, "sleep", waited.append)
    with (
        pytest.raises(MachineError, match="at the moment: Too many open files") as told,
        no_file_can_be_opened(),
    ):
        read(folder / "0.png")
    assert told.value.where == str(folder / "0.png")
    assert waited == list(images._PAUSES)
    read(folder / "0.png")


def test_a_moment_is_waited_for(folder: Path) -> None:
    refusing = threading.Event()
    over = threading.Event()

    def refuse() -> None:
        with no_file_can_be_opened():
            refusing.set()
            over.wait(0.1)

    thread = threading.Thread(target=refuse)
    thread.start()
    refusing.wait()
    assert read_image(folder / "0.png").size == (60, 60)
    thread.join()


class FailingDisk(io.FileIO):
    """A file of which only the beginning can be read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 1000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


def test_a_failing_disk_is_no_damaged_picture(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda path, mode="r": FailingDisk(path, mode))
        with pytest.raises(MachineError, match="Input/output error"):
            read_image(folder / "0.png")
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:1000])
    with pytest.raises(PictureError):
        read_image(folder / "0.png")


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_work_ends_and_goes_on(
    ending: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_PAUSES", ())
    output = tmp_path / f"verdicts.{ending}"
    requests = find_pictures([str(folder)])
    judge = make_judge()
    opened = Path.open
    refused = [str(folder / "3.png")]

    def open_or_refuse(path: Path, *arguments: str, **options: str) -> object:
        if str(path) in refused:
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        return opened(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", open_or_refuse)
    with pytest.raises(MachineError, match="Too many open files in system"):
        judge_to_file(judge, requests, output, identity="a judge", batch_size=1)
    with pytest.raises(MachineError):
        fingerprint(folder, "3.png")
    refused.clear()
    summary = judge_to_file(judge, requests, output, identity="a judge", batch_size=1)
    assert (summary.pictures, summary.failed) == (6, 1)
    quarantine = output.with_name(f"{output.name}.quarantine.csv").read_text()
    assert quarantine.count("\n") == 2 and "5.png,not_a_picture" in quarantine
    if ending == "jsonl":
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert [row["image"] for row in rows] == [request.name for request in requests]
