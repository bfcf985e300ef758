"""A pretend accelerator for machines that have none: its tensors live in host memory, but mixing
them with host tensors fails as it does on CUDA, and, if asked, float64 is refused as on MPS.

    import pretend_device
    pretend_device.install()                  # once per process, before models are made
    model.to("pretend"); batch.to("pretend")  # values: those of the CPU, nearly always bit for bit

It is a tensor subclass over torch's Python backend for PrivateUse1 (torch >= 2.10). What it can't
follow: inference mode (no_grad is put in its place), operators that resize an empty tensor,
`.data =`, loader workers that are handed its tensors. Speed says nothing. A scalar of the host
beside device tensors is allowed, except in `stack` and `cat`, as torch does.
"""

import torch
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "pretend"
_MOVES = {"aten::copy_", "aten::_to_copy", "aten::_copy_from"}
_JOINS = {"aten::stack", "aten::cat"}
_state = {"refuse_float64": False, "libraries": []}


class DeviceMix(RuntimeError):
    """Tensors of host and device in one operator."""


def _ours(device):
    return device is not None and torch.device(device).type == NAME


def _host_lists(index):
    """Lists in an index as host tensors: how torch puts them on the device can't be followed."""
    if isinstance(index, list):
        return torch.tensor(index)
    if isinstance(index, tuple):
        return tuple(torch.tensor(i) if isinstance(i, list) else i for i in index)
    return index


class PretendTensor(torch.Tensor):
    """A tensor that says it is on the device; `raw` is the host tensor that it is."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
            requires_grad=False,
        )

    def __init__(self, raw):
        self.raw = raw

    def __repr__(self):
        return f"{NAME}({self.raw!r})"

    def __getitem__(self, index):
        return torch.Tensor.__getitem__(self, _host_lists(index))

    def __setitem__(self, index, value):
        torch.Tensor.__setitem__(self, _host_lists(index), value)

    def tolist(self):
        return self.cpu().tolist()  # a copy that a dispatch mode sees, as on a real device

    def new_tensor(self, data, *, dtype=None, device=None, requires_grad=False):
        tensor = torch.tensor(data, dtype=dtype or self.dtype).to(device or NAME)
        return tensor.requires_grad_(requires_grad)

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return _run(op, *args, **(kwargs or {}))


def _run(op, *args, **kwargs):
    name, wanted = op._schema.name, kwargs.get("device")
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    mine = [t for t in tensors if isinstance(t, PretendTensor)]
    host = [t for t in tensors if not isinstance(t, PretendTensor)]
    mixes = mine and name not in _MOVES and "index" not in name
    if mixes and any(t.dim() > 0 or name in _JOINS for t in host):
        arguments = ", ".join(
            f"{'device' if isinstance(t, PretendTensor) else 'host'} {tuple(t.shape)}"
            for t in tensors
        )
        raise DeviceMix(f"{name} got tensors of host and device: {arguments}")

    def to_host(value):
        if isinstance(value, PretendTensor):
            return value.raw
        return (
            torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value
        )

    host_args, host_kwargs = tree_map(to_host, args), tree_map(to_host, kwargs)
    if host_kwargs.get("pin_memory"):
        host_kwargs["pin_memory"] = False
    result = op(*host_args, **host_kwargs)
    known = {id(t.raw): t for t in mine}

    def back(value):
        if not isinstance(value, torch.Tensor) or isinstance(value, PretendTensor):
            return value
        if id(value) in known:
            return known[id(value)]
        if wanted is not None and not _ours(wanted):
            return value
        if name == "aten::copy_" and not isinstance(args[0], PretendTensor):
            return args[0]
        if _state["refuse_float64"] and value.dtype is torch.float64:
            raise TypeError(f"the device has no float64: {name}")
        return PretendTensor(value)

    return tree_map(back, result)


class _Module(_DummyBackendModule):
    """What torch asks `torch.pretend`."""

    def is_available(self):
        return True

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def synchronize(self, device=None):
        pass

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device=None):
        return torch.random.get_rng_state()

    def set_rng_state(self, state, device=None):
        torch.random.set_rng_state(state)


def install(refuse_float64=False):
    """Register the device. `refuse_float64`: as on MPS."""
    _state["refuse_float64"] = refuse_float64
    if _state["libraries"]:
        return
    torch.__future__.set_swap_module_params_on_conversion(True)
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    every = torch.library.Library("_", "IMPL")
    every.fallback(_run, "PrivateUse1")
    aten = torch.library.Library("aten", "IMPL")

    def empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
        pretend = torch.device(NAME, 0)
        return _run(torch.ops.aten.empty.memory_format, size, dtype=dtype, device=pretend)

    def empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
        pretend = torch.device(NAME, 0)
        return _run(torch.ops.aten.empty_strided.default, size, stride, dtype=dtype, device=pretend)

    aten.impl("empty.memory_format", empty, "PrivateUse1")
    aten.impl("empty_strided", empty_strided, "PrivateUse1")
    _state["libraries"] += [every, aten]
    for name in ("tensor", "arange", "linspace", "logspace", "eye", "randperm"):
        setattr(torch, name, _through_host(getattr(torch, name)))
    torch.inference_mode = lambda mode=True: torch.no_grad()


def _through_host(make):
    def on_host(*args, device=None, **kwargs):
        if _ours(device):
            return make(*args, **kwargs).to(device)
        return make(*args, device=device, **kwargs)

    return on_host
