"""Annotations and their formats, the picture reader, transforms, splits, vocabulary, checks."""
