"""Verdicts of many pictures into files that can be resumed: on this machine, or on Ray."""
