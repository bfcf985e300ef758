"""The commands, each a few lines over the library."""

from __future__ import annotations

from beholder.cli.app import app, main

__all__ = ["app", "main"]
