"""The one choice of a device: who asks for it, and what is said when it is not there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from beholder.errors import DeviceError
from beholder.features.device import (
    VARIABLE,
    choose_device,
    exact_float32,
    has_float64,
    using_device,
)


@pytest.fixture(autouse=True)
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two XPUs and nothing else."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.mps, "is_available", lambda: False)
    xpu = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)
    monkeypatch.setattr(torch, "xpu", xpu)


def test_argument_option_environment_and_machine_in_this_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert choose_device() == torch.device("cpu")
    monkeypatch.setenv(VARIABLE, "xpu:1")
    assert choose_device() == torch.device("xpu:1")
    with using_device("xpu:0"):
        assert choose_device() == torch.device("xpu:0")
        with using_device(None):
            assert choose_device() == torch.device("xpu:0")
        assert choose_device("cpu") == torch.device("cpu")
        assert choose_device(torch.device("cpu")) == torch.device("cpu")
    assert choose_device() == torch.device("xpu:1")
    monkeypatch.setenv(VARIABLE, " ")
    assert choose_device() == torch.device("cpu")


def test_cuda_is_preferred_and_is_the_local_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert choose_device() == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert choose_device() == choose_device("cuda") == torch.device("cuda:2")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("xpu") == torch.device("xpu:0")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("cuda", "There is no device 'cuda' here."),
        ("meta", "There is no device 'meta' here."),
        ("xpu:2", "There is no device 'xpu:2' here: of xpu there are 2, counted from 0."),
        ("cpu:1", "There is no device 'cpu:1' here: of cpu there is one."),
        ("gpu", "'gpu' is not the name of a device."),
        ("cuda:x", "'cuda:x' is not the name of a device."),
    ],
)
def test_one_sentence_says_what_is_usable_and_who_asked(
    monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    monkeypatch.setenv(VARIABLE, name)
    for origin in (VARIABLE, "--device", "device"):
        with (
            using_device(name if origin == "--device" else None),
            pytest.raises(DeviceError) as refused,
        ):
            choose_device(name if origin == "device" else None)
        assert (refused.value.what, refused.value.where) == (what, origin)
        assert refused.value.fix == "Use one of: xpu:0, xpu:1, cpu."


def test_the_cpu_has_float64() -> None:
    assert has_float64(torch.device("cpu"))


@pytest.mark.parametrize("device_name", [None, "cuda", "cuda:0"])
def test_choosing_cuda_allows_tf32_and_nothing_else_does(device_name, monkeypatch):
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    try:
        torch.set_float32_matmul_precision("highest")
        choose_device("cpu")
        assert torch.get_float32_matmul_precision() == "highest"
        assert choose_device(device_name) == torch.device("cuda", 0)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_tf32_is_off_where_float32_must_be_exact() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with exact_float32():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
