"""The backbone that is shipped with the package: EfficientNet-Lite0 down to a 16th of the input's
size, tuned on spoilt photographs (docs/starter.md) from Google's ImageNet weights (Apache-2.0).

What is above, which sees things rather than distortions, is left out: a quarter of the weights
stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAME = "starter"
ARCHITECTURE = "tf_efficientnet_lite0"
SIDE = 128  # pixels of the parts that it has learnt from
WEIGHTS = Path(__file__).with_name("starter.safetensors")
_MAPS = 4  # of timm's five: to a half, a quarter, an eighth and a 16th


def cut(trunk: Any) -> Any:
    """The EfficientNet without what is above its maps of a 16th, in place."""
    trunk.prune_intermediate_layers(list(range(_MAPS)), prune_norm=True, prune_head=False)
    trunk.feature_info = trunk.feature_info[:_MAPS]
    trunk.stage_ends = trunk.stage_ends[:_MAPS]
    trunk.num_features = trunk.head_hidden_size = trunk.feature_info[-1]["num_chs"]
    trunk.reset_classifier(0, "avg")  # pruning has switched its pooling off
    return trunk
