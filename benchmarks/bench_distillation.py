"""A student's epoch with its teacher asked in every step, or asked beforehand (`cached_views`).

Teacher: CLIP ViT-B/32, or another; student: TinyViT-5M, trained whole; both random, at 224 pixels,
three attributes as in FASCODE. Real steps of AdamW on pictures decoded and augmented from JPEG
files, epochs in turns in one process; medians of processor seconds of one thread, which hardly
depend on what else the machine does. Then each part alone, which says what is attainable: with T
the teacher's time and R all the rest of an epoch, the ratio is 1 + T / R.

    python benchmarks/bench_distillation.py [--teacher clip/vit-b-32-quickgelu] [--pictures 32]
        [--batch 16] [--repeats 5] [--amp off]
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from beholder.data.annotations import AnnotationTable
from beholder.data.augment import Augmentation, AugmentConfig
from beholder.data.sharing import Processes
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeModel
from beholder.models.config import HeadConfig
from beholder.models.heads import AttributeHeads
from beholder.models.teachers import Member, Teacher
from beholder.tasks.build import judge_config
from beholder.tasks.config import DistillationTaskConfig
from beholder.tasks.distillation import DistillationTask
from beholder.training import TrainConfig
from beholder.training.cached_teacher_logits import CachedTeacherSource, write_teacher_logits
from beholder.training.loader import BatchSource, Loader
from beholder.training.sources import PictureSource
from beholder.training.step import StepRunner
from measure import conditions, medians

CLASSES = {"daily": 7, "gender": 6, "embellishment": 3}
ALONE = Processes(0, 1, torch.device("cpu"))
VIEWS = 1


def pictures(folder: Path, count: int) -> AnnotationTable:
    """Smooth noise, as JPEG of 600 x 800, with random labels."""
    generator = np.random.default_rng(0)
    keys = [f"{index}.jpg" for index in range(count)]
    for key in keys:
        small = generator.integers(0, 256, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(small).resize((600, 800), Image.Resampling.BICUBIC).save(folder / key)
    classes = {name: [str(label) for label in range(size)] for name, size in CLASSES.items()}
    labels = {
        name: [str(label) for label in generator.integers(0, size, count)]
        for name, size in CLASSES.items()
    }
    return AnnotationTable.from_columns(keys, attributes=labels, classes=classes)


def epoch_of(
    task: DistillationTask, source: BatchSource, config: TrainConfig
) -> Callable[[], None]:
    """One epoch of real steps."""
    runner = StepRunner(task, task.trainable(), config, ALONE)
    loader = Loader(source, config, ALONE)

    def run() -> None:
        for step, micro_batches in enumerate(loader.steps(0, loader.plan.steps_per_epoch)):
            runner.run(micro_batches, step + 1, 1e-4)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--teacher", default="clip/vit-b-32-quickgelu", help="a backbone's name")
    parser.add_argument("--amp", default="off", choices=["off", "bf16"])
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    looks = create_backbone(BackboneConfig(name=arguments.teacher, weights="random"))
    student_backbone = create_backbone(
        BackboneConfig(name="timm/tiny_vit_5m_224", weights="random", size=224, resize="pad")
    )
    settings = DistillationTaskConfig(train_backbone=True, head=HeadConfig())
    config = TrainConfig(batch_size=arguments.batch, amp=arguments.amp)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        table = pictures(folder, arguments.pictures)
        student = JudgeModel(
            judge_config(
                settings,
                table,
                backbone=student_backbone.config,
                pooled_dim=student_backbone.pooled_dim,
                token_dim=student_backbone.token_dim,
            ),
            student_backbone,
        )
        heads = AttributeHeads(looks.pooled_dim, table.classes)
        teacher = Teacher([Member(looks, heads, student_backbone.transform)], table.classes)
        changes = Augmentation(AugmentConfig(flip=0.5))
        source = PictureSource(folder, table, student_backbone.transform, changes)
        store = write_teacher_logits(teacher, source, folder / "said", VIEWS, config, ALONE)
        live = DistillationTask(copy.deepcopy(student), settings, teacher).train()
        cached = DistillationTask(student, settings).train()
        taught = CachedTeacherSource(source, store, table.classes)
        batches = list(Loader(source, config, ALONE).in_order())

        def ask() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.amp == "bf16"):
                for batch in batches:
                    teacher(batch["pixels"])

        taken = medians(
            {
                "live": epoch_of(live, source, config),
                "cached": epoch_of(cached, taught, config),
                "teacher": ask,
                "loading": lambda: [source.load(range(len(source)), 0)],
            },
            arguments.repeats,
            time.process_time,
        )
    T, R = taken["teacher"], taken["cached"]
    per = {name: seconds / arguments.pictures * 1e3 for name, seconds in taken.items()}
    print(f"{conditions()}, amp {arguments.amp}, batch {arguments.batch}, {arguments.teacher}")
    print(
        f"per picture: live {per['live']:.0f} ms, cached {per['cached']:.0f} ms, "
        f"ratio {per['live'] / per['cached']:.2f}; teacher alone {per['teacher']:.0f} ms, "
        f"loading alone {per['loading']:.1f} ms; 1 + T / R = {1 + T / R:.2f}"
    )


if __name__ == "__main__":
    main()
