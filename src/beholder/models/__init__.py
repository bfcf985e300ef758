"""Captioner, heads, teachers; import of reference checkpoints."""
