"""From pictures to features: backbones, the store that keeps their output, and extraction."""
