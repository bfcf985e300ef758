"""METEOR 1.5 for English: own implementation, with the language data of pycocoevalcap."""

from __future__ import annotations

from beholder.metrics.captions.meteor.score import Meteor, meteor

__all__ = ["Meteor", "meteor"]
