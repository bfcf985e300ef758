"""Which of ONNX Runtime's execution providers runs an exported judge, by the name of a device.

What can be had depends on the distribution of ONNX Runtime that is installed, not on torch, which
may be missing.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from importlib import metadata

import onnxruntime

from beholder.errors import DeviceError
from beholder.features.device import asked_device

Options = dict[str, str]

CPU = "CPUExecutionProvider"
_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_COREML, _DIRECTML = "CoreMLExecutionProvider", "DmlExecutionProvider"

# a device's name -> the provider, and how to get an ONNX Runtime that has it
_CUDA_REMEDY = "pip uninstall onnxruntime, then pip install 'beholder[gpu]'"
_COREML_REMEDY = "on macOS, pip install 'beholder[cpu]', whose ONNX Runtime has CoreML"
_DIRECTML_REMEDY = "on Windows, pip uninstall onnxruntime, then pip install 'beholder[directml]'"
_PROVIDERS = {
    "cpu": (CPU, "pip install 'beholder[cpu]'"),
    "cuda": (_CUDA, _CUDA_REMEDY),
    "tensorrt": (_TENSORRT, f"{_CUDA_REMEDY} tensorrt"),
    "mps": (_COREML, _COREML_REMEDY),
    "coreml": (_COREML, _COREML_REMEDY),
    "dml": (_DIRECTML, _DIRECTML_REMEDY),
    "directml": (_DIRECTML, _DIRECTML_REMEDY),
}
# Distributions of ONNX Runtime share one module: of two, the one that came last is there.
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml")

# Every provider computes in float32: a judge was compared with its original in that. A search for
# the fastest convolution would begin anew for each batch size.
_OPTIONS: dict[str, Options] = {
    _CUDA: {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
    _COREML: {"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndGPU"},
}


@dataclass(frozen=True)
class Placement:
    """Where graphs run.

    Args:
        provider: as ONNX Runtime names it.
        device: as it was asked for.
        index: of the device among those of its kind.
        required: False: it is only the best that may be there, and the CPU is as good an answer.
        origin: who asked for it, see `features.device.AskedDevice`.
    """

    provider: str
    device: str
    index: int = 0
    required: bool = True
    origin: str = "device"

    @property
    def memory(self) -> str:
        """Where values stay between two runs: with CUDA and TensorRT on the device."""
        return "cuda" if self.provider in (_CUDA, _TENSORRT) else "cpu"

    @property
    def memory_index(self) -> int:
        """Of the device whose memory that is."""
        return self.index if self.memory == "cuda" else 0

    @property
    def one_at_a_time(self) -> bool:
        """Whether a session must not be run by several threads at once."""
        return self.provider == _DIRECTML

    def providers(self) -> list[tuple[str, Options]]:
        """What a session is made with, the wanted one first; what it can't do, the next does."""
        index = {} if self.provider in (CPU, _COREML) else {"device_id": str(self.index)}
        chosen = [(self.provider, {**_OPTIONS.get(self.provider, {}), **index})]
        if self.provider == _TENSORRT:
            chosen.append((_CUDA, {**_OPTIONS[_CUDA], **index}))
        return chosen if self.provider == CPU else [*chosen, (CPU, {})]


ON_CPU = Placement(CPU, "cpu")


def choose_placement(device: str | None = None) -> Placement:
    """Where the graphs of an exported judge run.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, `tensorrt`, `mps` or `coreml`, `dml` or `directml`. None:
            as `features.device` was told; if it was not, CUDA where ONNX Runtime has it, otherwise
            the CPU. CoreML and DirectML are used only if they are asked for.

    Raises:
        DeviceError: there is no such device for an exported judge, or the ONNX Runtime that is
            installed has no provider of it.
    """
    available = onnxruntime.get_available_providers()
    wanted = asked_device(device)
    if wanted is None:
        return Placement(_CUDA, "cuda", required=False) if _CUDA in available else ON_CPU
    kind, colon, number = wanted.name.partition(":")
    if kind not in _PROVIDERS or (colon and not number.isdigit()):
        raise DeviceError(
            f"An exported judge can't run on {wanted.name!r}.",
            where=wanted.origin,
            fix=f"Use one of {', '.join(_PROVIDERS)}; with a number if there are several (cuda:1).",
        )
    provider, remedy = _PROVIDERS[kind]
    if provider not in available:
        has = ", ".join(name.removesuffix("ExecutionProvider") for name in available)
        raise DeviceError(
            f"The ONNX Runtime that is installed can't use {wanted.name!r}: it has only {has}.",
            where=wanted.origin,
            fix=f"{_both_installed() or ''}{remedy}; or choose cpu.",
        )
    if provider == CPU:
        return ON_CPU
    return Placement(provider, wanted.name, int(number or 0), origin=wanted.origin)


def _both_installed() -> str | None:
    """How to mend it if several distributions of ONNX Runtime have overwritten each other."""
    present = []
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.version(name)
            present.append(name)
    if len(present) < 2:
        return None
    return (
        f"{' and '.join(present)} are both installed and overwrite each other: pip uninstall "
        f"{' '.join(present)}, then install one again: "
    )


def find_libraries(placement: Placement) -> None:
    """Let ONNX Runtime find the CUDA libraries that pip has installed, with torch or without."""
    if placement.memory == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        # it prints what it does not find; standard output is for verdicts
        with contextlib.redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()


def unusable(placement: Placement, reason: str) -> DeviceError:
    """The error for a provider that is installed but can't run a graph here."""
    return DeviceError(
        f"ONNX Runtime {onnxruntime.__version__} can't use {placement.device!r} here: {reason}",
        where=placement.origin,
        fix="Check the driver and the libraries that this provider needs "
        "(https://onnxruntime.ai/docs/execution-providers), or choose cpu.",
    )
