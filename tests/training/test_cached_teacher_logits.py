"""A teacher asked beforehand: the same logits as live, resumed after a kill, never of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from beholder.data.annotations import AnnotationTable
from beholder.data.augment import Augmentation, AugmentConfig
from beholder.data.sharing import Processes
from beholder.data.transforms import EvalTransform
from beholder.errors import PictureError, StoreError
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.features.store import FeatureStore
from beholder.models.heads import AttributeHeads
from beholder.models.teachers import Member, Teacher
from beholder.training import TrainConfig, cached_teacher_logits
from beholder.training.cached_teacher_logits import (
    CachedTeacherSource,
    teacher_store_card,
    write_teacher_logits,
)
from beholder.training.sources import PictureSource

CLASSES = {"light": ("bright", "dim", "dark"), "mood": ("calm", "wild")}
TRANSFORM = EvalTransform(size=(32, 32))
ALONE = Processes(0, 1, torch.device("cpu"))
CHANGES = AugmentConfig(flip=0.5, brightness=0.5, box_jitter=0.2)
ROWS = 5


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for row in range(ROWS):
        noise = np.random.default_rng(row).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{row}.png")
    return tmp_path


def make_source(root: Path, seed: int = 3, changes: AugmentConfig = CHANGES) -> PictureSource:
    boxes = [[2.0, 3.0, 30.0, 25.0], *[None] * (ROWS - 1)]
    table = AnnotationTable.from_columns(
        [f"{row}.png" for row in range(ROWS)],
        box=boxes,
        attributes={name: [None] * ROWS for name in CLASSES},
        classes=CLASSES,
    )
    return PictureSource(root, table, TRANSFORM, Augmentation(changes), seed=seed)


class Counted(Teacher):
    """Counts the pictures that it is asked about, and may break down."""

    asked = 0
    last = 10**9

    def forward(self, pixels_B3HW: torch.Tensor) -> dict[str, torch.Tensor]:
        self.asked += len(pixels_B3HW)
        if self.asked > self.last:
            raise KeyboardInterrupt
        return super().forward(pixels_B3HW)


def make_teacher(seed: int = 1) -> Counted:
    torch.manual_seed(seed)
    backbone = create_backbone(BackboneConfig(name="timm/test_efficientnet", weights="random"))
    heads = AttributeHeads(backbone.pooled_dim, CLASSES)
    return Counted([Member(backbone, heads, TRANSFORM)], CLASSES)


def write(
    teacher: Teacher, source: PictureSource, store_folder: Path, versions: int = 3
) -> FeatureStore:
    return write_teacher_logits(
        teacher, source, store_folder, versions, TrainConfig(batch_size=2), ALONE
    )


def test_batches_bring_what_the_teacher_says_of_their_pixels(root: Path) -> None:
    teacher, source = make_teacher(), make_source(root)
    views = CachedTeacherSource(source, write(teacher, source, root / "said"), CLASSES)
    assert teacher.asked == 3 * ROWS
    assert (views.keys, len(views)) == (source.keys, ROWS)
    shown = []
    for epoch in range(6):
        batch = views.load([4, 0, 2], epoch)
        live = teacher(batch["pixels"])
        assert list(batch["teacher"]) == list(live)
        for name, logits in live.items():
            torch.testing.assert_close(batch["teacher"][name], logits, rtol=1e-5, atol=1e-6)
        # what a source without a teacher gives in the first epochs, over and over
        plain = source.load([4, 0, 2], epoch % 3)
        assert torch.equal(batch["pixels"], plain["pixels"])
        shown.append(batch["pixels"])
    assert torch.equal(shown[0], shown[3])
    assert not torch.equal(shown[0], shown[1])


def test_the_teacher_computes_as_it_would_in_a_step(root: Path) -> None:
    teacher, source = make_teacher(), make_source(root)
    settings = TrainConfig(batch_size=ROWS, amp="bf16")
    store = write_teacher_logits(teacher, source, root / "said", 1, settings, ALONE)
    cached = CachedTeacherSource(source, store, CLASSES).load(range(ROWS), 0)
    with torch.autocast("cpu", torch.bfloat16):
        live = teacher(cached["pixels"])
    plain = teacher(cached["pixels"])
    for name, logits in live.items():
        torch.testing.assert_close(cached["teacher"][name], logits.float())
        assert not torch.equal(cached["teacher"][name], plain[name])
    with pytest.raises(StoreError, match="is of a teacher"):
        write(teacher, source, root / "said", versions=1)


def test_a_stopped_one_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_teacher_logits, "SHARD_ROWS", 1)
    teacher, source, store_folder = make_teacher(), make_source(root), root / "said"
    teacher.last = 2 * 3 + 1  # two pictures done, in the midst of the next two
    with pytest.raises(KeyboardInterrupt):
        write(teacher, source, store_folder)
    teacher.asked, teacher.last = 0, 10**9
    store = write(teacher, source, store_folder)
    assert teacher.asked == 3 * (ROWS - 2)
    whole = write(make_teacher(), source, root / "whole")
    assert np.array_equal(store.read(source.keys)[0], whole.read(source.keys)[0])
    teacher.asked = 0
    write(teacher, source, store_folder)
    assert teacher.asked == 0


def test_a_changed_picture_is_shown_again(root: Path) -> None:
    teacher, store_folder = make_teacher(), root / "said"
    before = write(teacher, make_source(root), store_folder).read(["3.png", "4.png"])[0]
    Image.new("RGB", (40, 30), (200, 10, 10)).save(root / "3.png")
    teacher.asked = 0
    after = write(teacher, make_source(root), store_folder).read(["3.png", "4.png"])[0]
    assert teacher.asked == 3
    assert not np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    (root / "4.png").unlink()
    with pytest.raises(PictureError) as caught:
        write(teacher, make_source(root), store_folder)
    assert (caught.value.where, caught.value.code) == ("4.png", "missing")


def test_what_decides_the_logits_decides_the_store(root: Path) -> None:
    teacher, source, store_folder = make_teacher(), make_source(root), root / "said"
    write(teacher, source, store_folder)
    others: dict[str, tuple[Any, ...]] = {
        "weights": (make_teacher(2), source, 3),
        "seed": (teacher, make_source(root, seed=4), 3),
        "changes": (teacher, make_source(root, changes=AugmentConfig(flip=0.4)), 3),
        "views": (teacher, source, 2),
    }
    cards = {teacher_store_card(teacher, source, 3)}
    for other_teacher, pictures, views in others.values():
        with pytest.raises(StoreError, match="is of a teacher"):
            write(other_teacher, pictures, store_folder, views)
        cards.add(teacher_store_card(other_teacher, pictures, views))
    assert len(cards) == 1 + len(others)
    assert teacher_store_card(make_teacher(), make_source(root), 3) in cards


def test_how_a_teacher_sees_is_part_of_what_it_is() -> None:
    def fingerprint(seen: EvalTransform, clamp: float = 8.0) -> str:
        member = make_teacher().members[0]
        heads = member.heads
        heads.config = heads.config.model_copy(update={"clamp": clamp})
        return Teacher([Member(member.backbone, heads, seen)], CLASSES).fingerprint()

    same = fingerprint(TRANSFORM)
    assert same == fingerprint(EvalTransform(size=(32, 32)))
    tinted = fingerprint(EvalTransform(size=(32, 32), mean=(0.5, 0.5, 0.5)))
    unresized = fingerprint(EvalTransform(size=(160, 160)))  # the teacher's own size
    assert len({same, tinted, unresized, fingerprint(TRANSFORM, clamp=4.0)}) == 4
