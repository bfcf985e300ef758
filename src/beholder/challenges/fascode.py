"""A judge's attributes in the form that an attributes challenge wants: one file of weights and a
program that runs on a CPU with numpy, Pillow and ONNX Runtime alone.

```
FOLDER/
  model.onnx      the weights, the transform and the classes in one file
  predict.py      a table of pictures in, the same table with classes out (`fascode_predict.py`)
  beholder/       the picture reader and the transform, copied as they are
```
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import beholder
from beholder.data.files import atomic_path
from beholder.data.test_time_augmentation import ViewConfig
from beholder.errors import GateError, JudgeError
from beholder.export.graphs import numbered, to_onnx
from beholder.export.onnx_weights import halve_weights
from beholder.export.size import MEGABYTE, check_size, state_bytes, too_large
from beholder.judge.model import JudgeModel
from beholder.judge.runtime.backends import require_onnxruntime
from beholder.judge.store.dtypes import NumberType, stored_as
from beholder.judge.store.folder import load_judge

log = logging.getLogger("beholder")

# what the program needs of the package; none of it needs more than numpy and Pillow, and OpenCV
# if the judge removes backgrounds
COPIED = (
    "errors.py", "data/__init__.py", "data/images.py", "data/transforms.py", "data/background.py",
    "data/colours.py", "data/signatures.py", "data/files.py",
)  # fmt: skip
TOLERANCE = {"float32": 1e-3, "float16": 3e-2}  # of logits, in parts of their spread


class AttributeNetwork(nn.Module):
    """Pixels to the logits of every attribute, in the order of the classes."""

    def __init__(self, model: JudgeModel) -> None:
        super().__init__()
        self.backbone, self.heads = model.backbone, model.heads["attributes"]

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        assert self.backbone is not None
        return tuple(self.heads(self.backbone(pixels, tokens=False).pooled_BP).values())


def write_submission(
    judge: Path, folder: Path, *, megabytes: float = 25.0, dtype: NumberType = "float32"
) -> int:
    """Write the folder, after the file has been found to be small enough and to say the same.

    Args:
        judge: a judge's folder with attributes; other heads stay behind.
        megabytes: most that `model.onnx` may have; 1 MB is 1,000,000 bytes.
        dtype: of the stored weights; it computes in float32.

    Returns:
        The bytes of `model.onnx`.

    Raises:
        JudgeError: there is no such judge, it has no attributes or several labels of one at
            once, or it averages views.
        GateError: the file is too large, or does not say what the judge says.
        MissingExtra: what writes or runs ONNX is not installed.
        OutputError: the folder can't be written.
    """
    require_onnxruntime("Comparing a submission with its judge")
    model = load_judge(judge).model.eval()
    if "attributes" not in model.heads:
        raise JudgeError("The judge has no attributes to submit.", where=str(judge))
    if model.multi_label:
        raise JudgeError(
            f"The form has one class of each attribute; of {', '.join(sorted(model.multi_label))} "
            "several labels may hold at once.",
            where=str(judge),
            fix="Submit a judge of attributes with one label each.",
        )
    if model.config.views != ViewConfig():
        raise JudgeError(
            "The judge averages several views of a picture; the form has one pass.",
            where=str(judge),
            fix="Export it without `views`.",
        )
    model.load_state_dict(stored_as(model.state_dict(), dtype))
    network = AttributeNetwork(model).eval()
    stored = stored_as(network.state_dict(), dtype)
    if state_bytes(stored) > megabytes * MEGABYTE:
        raise too_large(
            f"The judge, {state_bytes(stored):,} bytes as {dtype},", str(judge), megabytes, stored
        )
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        path = temporary / "model.onnx"
        _export(network, model, path, dtype)
        size = check_size(path, megabytes, stored)
        _check_parity(network, path, dtype)
        shutil.copyfile(Path(__file__).with_name("fascode_predict.py"), temporary / "predict.py")
        home = Path(beholder.__file__).parent
        for name in COPIED:
            target = temporary / "beholder" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(home / name, target)
        (temporary / "beholder" / "__init__.py").write_text(
            f'"""The part of Beholder {beholder.__version__} that sees pictures."""\n'
        )
    return size


def _export(network: AttributeNetwork, model: JudgeModel, path: Path, dtype: NumberType) -> None:
    """One file with weights, transform and classes."""
    assert model.backbone is not None
    logits = numbered("logits", len(model.classes))
    proto = to_onnx(network, {"pixels": _pixels(model, 2)}, ({0: "pictures"},), logits)
    if dtype == "float16":
        halve_weights(proto)
    about: dict[str, Any] = {
        "classes": {name: list(labels) for name, labels in model.classes.items()},
        "transform": model.backbone.transform.to_dict(),
    }
    entry = proto.metadata_props.add()
    entry.key, entry.value = "beholder", json.dumps(about, ensure_ascii=False)
    path.write_bytes(proto.SerializeToString())


def _check_parity(network: AttributeNetwork, path: Path, dtype: NumberType) -> None:
    """Make sure that the file says what the network says, on pictures of noise.

    Raises:
        GateError: its logits differ by more than rounding.
    """
    import onnxruntime

    generator = np.random.default_rng(0)
    assert network.backbone is not None
    shape = (3, 3, *network.backbone.transform.size)
    pixels = generator.normal(0, 1, shape).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    exported = session.run(None, {"pixels": pixels})
    with torch.inference_mode():
        expected = [logits.numpy() for logits in network(torch.from_numpy(pixels))]
    for logits, reference in zip(exported, expected, strict=True):
        worst = float(np.abs(np.asarray(logits) - reference).max() / max(np.ptp(reference), 1e-6))
        if not worst <= TOLERANCE[dtype]:
            raise GateError(
                f"The exported file does not say what the judge says: logits differ by {worst:.2g} "
                "of their spread.",
                where=str(path.name),
                fix="Submit as float32; if it is that already, this backbone can't be exported.",
            )


def _pixels(model: JudgeModel, count: int) -> Tensor:
    assert model.backbone is not None
    return torch.zeros(count, 3, *model.backbone.transform.size)
