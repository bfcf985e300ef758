"""SPICE through the user's Java and pycocoevalcap: an extra, never a requirement.

Anderson et al., SPICE, ECCV 2016. Its scene-graph parser exists in Java only; this runs that
package's program, which fetches the Stanford models on its first use.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from beholder.errors import BeholderError


def spice(
    references: Sequence[Sequence[str]], hypotheses: Sequence[str]
) -> tuple[float, NDArray[np.float64]]:
    """SPICE of the corpus (mean over pictures) and of each picture [P], 0 to 1.

    A picture whose captions hold no tuple is NaN and left out of the mean.

    Args:
        references: tokenised captions (tokens joined by spaces), one or more for each picture.
        hypotheses: one tokenised caption for each picture.

    Raises:
        BeholderError: Java or pycocoevalcap is missing, or the program fails.
    """
    missing = [name for name, there in _needed().items() if not there]
    if missing:
        raise BeholderError(
            f"SPICE needs {' and '.join(missing)}.",
            fix="Install a Java runtime and `pip install pycocoevalcap`, or leave SPICE out.",
        )
    from pycocoevalcap.spice.spice import Spice

    keys = range(len(hypotheses))
    try:
        _, scores = Spice().compute_score(
            {key: list(references[key]) for key in keys}, {key: [hypotheses[key]] for key in keys}
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise BeholderError(
            f"SPICE's Java program failed: {error}.",
            fix="It needs a network on its first use, to fetch its models, 8 GB of memory, and a "
            "Java that its libraries run on (8 or 11).",
        ) from error
    each = np.array([entry["All"]["f"] for entry in scores], dtype=np.float64)
    defined = each[~np.isnan(each)]
    return (float(defined.mean()) if defined.size else float("nan")), each


def _needed() -> dict[str, bool]:
    return {
        "Java": shutil.which("java") is not None,
        "the pycocoevalcap package": find_spec("pycocoevalcap") is not None,
    }
