"""What a training's meter says, against a clock that the test holds."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_training import TinySource, TinyTask, config

from beholder.data.sharing import Processes
from beholder.training import meter as meter_module
from beholder.training import train
from beholder.training.meter import Meter

ALONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only pass when the test says so."""

    class Clock:
        now = 100.0

        def wait(self, seconds: float) -> None:
            self.now += seconds

    held = Clock()
    monkeypatch.setattr(meter_module.time, "perf_counter", lambda: held.now)
    return held


def test_steps_waits_evaluations_and_checkpoints_are_told_apart(clock, tmp_path):
    def batches():
        for _ in range(5):
            clock.wait(1.0)
            yield None

    meter = Meter(ALONE)
    clock.wait(50.0)  # before the first step: the task's preparation
    for number, _ in enumerate(meter.waiting(batches()), start=1):
        clock.wait(9.0 if number == 1 else 3.0)
        meter.step(pictures=8)
        if number == 2:
            with meter.evaluating(pictures=17):
                clock.wait(20.0)
        if number == 3:
            throughput = meter.read()
            with meter.saving():
                clock.wait(7.0)
    # three steps: 10 + 4 + 4 seconds, 3 of them waiting
    assert throughput.seconds_per_step == pytest.approx(6.0)
    assert throughput.pictures_per_second == pytest.approx(24 / 18)
    assert throughput.data_wait == pytest.approx(3 / 18)
    assert throughput.peak_device_bytes is None
    assert "1.333 pictures/s, data wait 17%, peak memory" in str(throughput)
    second = meter.read()
    assert second.seconds_per_step == pytest.approx(4.0)
    assert second.data_wait == pytest.approx(0.25)

    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "b").write_bytes(b"4567")
    meter.saved(tmp_path)
    timings = meter.timings()
    assert timings.first_step_seconds == pytest.approx(10.0)
    assert timings.step_seconds == pytest.approx(4.0)
    assert (timings.evaluation_seconds, timings.evaluated_pictures) == (20.0, 17)
    assert (timings.save_seconds, timings.checkpoint_bytes) == (7.0, 7)
    assert timings.peak_host_bytes > 10e6


def test_the_device_is_waited_for_once_per_line(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cpu, "synchronize", lambda *_: waits.append(1))
    meter = Meter(ALONE)
    for number, _ in enumerate(meter.waiting(iter(range(30))), start=1):
        meter.step(pictures=1)
        if number % 10 == 0:
            meter.read()
    assert len(waits) == 1 + 3, "after the first step, and at each of three lines"


def test_peak_memory_of_a_device_that_counts_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "max_memory_allocated", lambda _: 5 * 10**9, raising=False)
    meter = Meter(ALONE)
    meter.step(pictures=1)
    assert meter.timings().peak_device_bytes == 5 * 10**9
    assert "5.00 GB on the device" in str(meter.read())


def test_a_training_tells_what_it_took(tmp_path):
    loading = 0.02  # seconds of a batch, at least
    slow = TinySource(24, seconds=loading)
    result = train(TinyTask(), slow, TinySource(9), config(epochs=2, log_every=2), tmp_path, "cpu")
    timings = result.timings
    assert timings.step_seconds >= loading
    assert timings.first_step_seconds >= loading
    assert timings.evaluated_pictures == 9
    assert timings.evaluation_seconds > 0
    folder = result.checkpoint
    assert timings.checkpoint_bytes == sum(file.stat().st_size for file in folder.iterdir())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [line["throughput"] for line in lines if line["split"] == "train"]
    assert len(rates) == 3
    for throughput in rates:
        assert throughput["data_wait"] * throughput["seconds_per_step"] >= loading
        assert throughput["pictures_per_second"] == pytest.approx(
            8 / throughput["seconds_per_step"]
        )
    assert "pictures/s, data wait" in (tmp_path / "log.txt").read_text()


def test_an_attempt_that_makes_no_step_took_none(tmp_path):
    for _ in range(2):
        result = train(TinyTask(), TinySource(8), None, config(epochs=1), tmp_path, "cpu")
    assert result.timings.step_seconds is None
    assert result.timings.first_step_seconds is None


def test_the_only_step_is_the_step(tmp_path):
    result = train(TinyTask(), TinySource(8), None, config(epochs=1), tmp_path, "cpu")
    assert result.timings.step_seconds == result.timings.first_step_seconds
    assert result.timings.step_seconds > 0
