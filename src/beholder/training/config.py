"""The options of a training: every value with its unit and range. No torch.

A step is one move of the optimiser; it sees `batch_size * accumulate` pictures, over all processes
together.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Mode = Literal["max", "min"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OptimizerConfig(_Strict):
    """The optimiser: one of torch's own, or RAdam as its authors published it."""

    name: Literal["radam", "adamw", "adam", "sgd"] = Field(
        default="adamw",
        description="optimiser; weight decay is decoupled for adamw and radam and added to the "
        "gradient for the others; radam does not move in its first five steps",
    )
    betas: tuple[
        Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]
    ] = Field(
        default=(0.9, 0.999),
        description="decay rates of both moments, 0 to 1; for sgd the first is the momentum",
    )
    eps: float = Field(
        default=1e-8, gt=0.0, description="term added to the root of the second moment; not for sgd"
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0.0,
        description="weight decay of matrices and kernels; biases, norms, scales and what the "
        "backbone's own recipe spares, e.g. position embeddings, get none",
    )

    @model_validator(mode="after")
    def _moves(self) -> OptimizerConfig:
        # its variance would never count as tractable: 2 / (1 - beta2) - 1 <= 5
        if self.name == "radam" and self.betas[1] <= 2 / 3:
            raise ValueError("radam never moves with a second beta of at most 2/3; e.g. 0.98")
        return self


class ConstantSchedule(_Strict):
    """lr after a linear warm-up."""

    name: Literal["constant"] = "constant"
    warmup_steps: int = Field(
        default=0, ge=0, description="steps in which the learning rate rises from 0 to lr"
    )


class CosineSchedule(_Strict):
    """Linear warm-up, then half a cosine down to `min_lr` after the last step."""

    name: Literal["cosine"] = "cosine"
    warmup_steps: int = Field(
        default=0, ge=0, description="steps in which the learning rate rises from 0 to lr"
    )
    min_lr: float = Field(default=0.0, ge=0.0, description="learning rate at the end")


class WarmupAnnealSchedule(_Strict):
    """The published captioner's: the rate is divided by the steps left of the warm-up, then
    multiplied by `coefficient` every few epochs. Most of the warm-up is close to 0."""

    name: Literal["custom_warmup_anneal"]
    warmup_steps: int = Field(default=300, ge=0, description="steps until the full rate")
    coefficient: float = Field(default=0.8, gt=0.0, le=1.0, description="factor per anneal, 0 to 1")
    every_epochs: float = Field(default=2.0, gt=0.0, description="epochs between anneals")
    warmup_unit: Literal["step", "micro-batch"] = Field(
        default="step",
        description="what warmup_steps counts; micro-batch: forward passes, `accumulate` of them "
        "per step, as the published code counts",
    )
    min_lr: float = Field(
        default=5e-7, ge=0.0, description="lowest learning rate after the warm-up"
    )


class CosineRestartsSchedule(_Strict):
    """Cycles of linear warm-up and cosine, each peak `factor` times the one before."""

    name: Literal["cosine_restarts"]
    warmup_epochs: float = Field(default=5.0, ge=0.0, description="epochs of each cycle's warm-up")
    cycle_epochs: float = Field(
        default=30.0, gt=0.0, description="epochs of a cycle with its warm-up"
    )
    factor: float = Field(
        default=0.9, gt=0.0, le=1.0, description="factor of the peak from one cycle to the next"
    )
    min_lr: float = Field(default=4e-5, ge=0.0, description="learning rate between the peaks")

    @model_validator(mode="after")
    def _warmup_fits(self) -> CosineRestartsSchedule:
        if self.warmup_epochs >= self.cycle_epochs:
            raise ValueError("warmup_epochs must be less than cycle_epochs")
        return self


ScheduleConfig = Annotated[
    ConstantSchedule | CosineSchedule | WarmupAnnealSchedule | CosineRestartsSchedule,
    Field(discriminator="name"),
]


class MonitorConfig(_Strict):
    """The metric that says which checkpoint is best."""

    metric: str = Field(description="name of a metric of the task's evaluation, e.g. srcc")
    mode: Mode | None = Field(
        default=None, description="max or min; null: the task's own direction"
    )


class EarlyStopConfig(MonitorConfig):
    """Stop when the metric has not become better for a while."""

    patience: int = Field(ge=1, description="evaluations without a better value before stopping")


# Fields of a training that decide neither its weights nor which of them are best.
BOOKKEEPING = frozenset(
    {
        "log_every", "save_every_minutes", "save_every_steps", "save_every_epochs", "keep",
        "workers",
    }
)  # fmt: skip
# Further fields that a training with checkpoints may be resumed with.
EXTENDABLE = frozenset({"epochs", "max_steps", "monitor", "early_stop"})


class TrainConfig(_Strict):
    """One training of one task."""

    epochs: int = Field(default=10, ge=1, description="passes over the training pictures")
    max_steps: int | None = Field(
        default=None, ge=1, description="steps after which training stops even if epochs are left"
    )
    batch_size: int = Field(
        default=32, ge=1, description="pictures per forward pass, over all processes together"
    )
    sampling: Literal["shuffled", "balanced"] = Field(
        default="shuffled",
        description="shuffled: every picture once per epoch; balanced: as many pictures, drawn so "
        "that the classes of each attribute come equally often",
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="forward passes per step; the step is that of one large batch, except that "
        "batch norms see one forward pass at a time",
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    lr: float = Field(default=1e-3, gt=0.0, description="peak learning rate")
    backbone_lr_factor: float = Field(
        default=1.0, ge=0.0, description="factor of lr that gives the backbone's learning rate"
    )
    layer_decay: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="factor from the learning rate of a backbone's layer to that of the layer "
        "below, so that early layers change least, e.g. 0.75; null: all layers alike",
    )
    schedule: ScheduleConfig = CosineSchedule()
    clip_norm: float | None = Field(
        default=None,
        gt=0.0,
        description="largest 2-norm of the gradient, which is scaled down to it; null: no limit",
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="decay per step of the averaged weights (and batch norms' statistics) that are "
        "evaluated and kept, e.g. 0.999; null: the weights themselves are",
    )
    amp: Literal["auto", "off", "bf16", "fp16"] = Field(
        default="auto",
        description="arithmetic of the forward pass; auto: bf16 or fp16 on accelerators, off on "
        "the CPU",
    )
    monitor: MonitorConfig | None = Field(
        default=None,
        description="metric that decides which checkpoint is best; null: early_stop's, or the "
        "task's",
    )
    early_stop: EarlyStopConfig | None = Field(
        default=None, description="when to stop early; null: train to the end"
    )
    evaluate_every: int = Field(default=1, ge=1, description="epochs between evaluations")
    evaluate_every_steps: int | None = Field(
        default=None, ge=1, description="steps between further evaluations; null: none"
    )
    log_every: int = Field(default=10, ge=1, description="steps between lines in the logs")
    save_every_minutes: float | None = Field(
        default=10.0, gt=0.0, description="minutes between checkpoints; null: not by time"
    )
    save_every_steps: int | None = Field(
        default=None, ge=1, description="steps between checkpoints; null: not by steps"
    )
    save_every_epochs: int | None = Field(
        default=None, ge=1, description="epochs between checkpoints; null: not by epochs"
    )
    keep: int = Field(
        default=2, ge=1, description="number of newest checkpoints to keep; the best is kept too"
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="seed of order, augmentation and dropout"
    )
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        default="auto",
        description="loading processes per process; 0: none; auto: by cores, device and whether "
        "pictures are decoded",
    )

    def changes_result(self) -> dict[str, object]:
        """The values that a resumed training must share with the one that it resumes."""
        return self.model_dump(mode="json", exclude=set(BOOKKEEPING | EXTENDABLE))
