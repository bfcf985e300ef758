"""The formats that are known by name, and what each of them wants of a file."""

from __future__ import annotations

from beholder.data.formats import ava, captions, folder, label_studio, structured
from beholder.data.formats.layouts import GENERIC, LAYOUTS

FORMATS: dict[str, str] = {
    **{layout.name: layout.wants for layout in (*LAYOUTS, GENERIC)},
    "captioner": captions.CAPTIONER_WANTS,
    "karpathy": captions.KARPATHY_WANTS,
    "coco": structured.COCO_WANTS,
    "captions": structured.CAPTIONS_WANTS,
    "label-studio": label_studio.WANTS,
    "ava": ava.WANTS,
    "dataset": "a folder of a Hugging Face data set, or with metadata.jsonl or metadata.csv",
    "folder": folder.WANTS,
    "parquet": "a Parquet file",
}
"""Format -> what it wants of a file."""
