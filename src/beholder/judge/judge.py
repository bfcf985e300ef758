"""The judge that users load: pictures in, verdicts out.

Legend: B pictures, V views of a picture, H height, W width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from beholder.data.images import read_image
from beholder.data.test_time_augmentation import ViewConfig, read_views
from beholder.data.transforms import EvalTransform
from beholder.data.vocabulary import Vocabulary
from beholder.errors import DataError, JudgeError, MissingExtra
from beholder.judge.calibration import Calibration
from beholder.judge.explain import Explanation, place_heat, scale_heat, unexplained
from beholder.judge.generation import GenerationConfig
from beholder.judge.runner import Box, Picture, Request, boxes_of, judge_pictures, name_of
from beholder.judge.runtime.backends import DEFAULT, Backend
from beholder.judge.runtime.engine import (
    Engine,
    ExplainingEngine,
    HeadOutputs,
    opinions_of_views,
)
from beholder.judge.sanity import check_opinions
from beholder.judge.store.find import find_judge
from beholder.judge.store.manifest import short_identity
from beholder.judge.verdict import Judged, Verdict
from beholder.judge.verdict_of import verdicts_of

if TYPE_CHECKING:
    import torch

    from beholder.features.precision import Amp
    from beholder.judge.model import JudgeModel


class Judge:
    """Gives verdicts on pictures.

    Args:
        engine: runs the networks.
        transform: from a decoded picture to the network's input.
        classes: attribute -> labels in the order of the network's outputs.
        vocabulary: of the comment head; None without one.
        multi_label: attributes of which several labels may hold at once.
        calibration: how far the opinions can be trusted.
        views: what of a picture is looked at; scores and probabilities are means over the views,
            comments and explanations are of the first.
        generation: how a comment is written; None: no comment.
        score_range: lowest and highest score that it may give; None: no score.
        rating_bins: whose shares the network tells, in order; empty: a score without them.
        provenance: which recipe and run it comes from, as saved with it.
    """

    def __init__(
        self,
        engine: Engine,
        transform: EvalTransform,
        *,
        classes: Mapping[str, Sequence[str]],
        multi_label: Collection[str] = (),
        vocabulary: Vocabulary | None = None,
        calibration: Calibration | None = None,
        views: ViewConfig | None = None,
        generation: GenerationConfig | None = None,
        score_range: tuple[float, float] | None = None,
        rating_bins: Sequence[float] = (),
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.engine = engine
        self.transform = transform
        self.classes = {name: tuple(labels) for name, labels in classes.items()}
        self.multi_label = frozenset(multi_label)
        self.vocabulary = vocabulary
        self.calibration = calibration or Calibration()
        self.views = views or ViewConfig()
        self.views.check(transform)
        self.generation = self._writes = generation
        self.score_range = score_range
        self.rating_bins = tuple(rating_bins)
        self.provenance = dict(provenance or {})
        self.source: Path | None = None  # where it was loaded from
        self.identity: str | None = None  # which judge it is; None: it was never saved

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | None = None,
        *,
        backend: Backend | None = None,
        threads: int | None = None,
        amp: Amp = "auto",
    ) -> Judge:
        """Load a judge's folder, an exported file, `starter`, or `owner/name` on the Hub.

        Args:
            device: `cpu`, `cuda`, `cuda:1`, `mps` or another that PyTorch has; None: that of
                `--device` or `BEHOLDER_DEVICE`, else the best there is. What a file may run on is
                told in `providers.choose_placement` (also `tensorrt`, `coreml`, `dml`), and of
                OpenVINO in `openvino_graph.choose_openvino_device` (`gpu`, `auto`).
            backend: what runs a file: `onnxruntime` (None) or `openvino`. A folder is run by
                PyTorch.
            threads: that run the networks on the CPU (of a folder: all of PyTorch in this
                process); None: one per core.
            amp: arithmetic of a folder's networks: `auto` (bf16 or fp16 on accelerators, float32
                on the CPU), `off`, `bf16` or `fp16`. A file has its own.

        Raises:
            DeviceError: the device is not there, has no such arithmetic, or what runs the judge
                can't use it.
            JudgeError: missing, incomplete, changed, or of a newer format; or a backend was asked
                for a folder.
            MissingExtra: what runs it is not installed: PyTorch for a folder, the backend for a
                file.
        """
        path = find_judge(path)
        if path.is_file():
            if amp != "auto":
                raise JudgeError(
                    "An exported judge has the arithmetic that it was exported in.",
                    where=str(path),
                    fix="Leave amp out, or load the judge's folder.",
                )
            judge = cls._of_file(path, device, backend or DEFAULT, threads)
        elif backend:
            raise JudgeError(
                f"A judge's folder is run by PyTorch, not by {backend}.",
                where=str(path),
                fix="Leave the backend out, or make one file of it: beholder export.",
            )
        else:
            judge = cls._of_folder(path, device, threads, amp)
        judge.source, judge.identity = path, short_identity(path)
        return judge

    @classmethod
    def _of_folder(cls, path: Path, device: str | None, threads: int | None, amp: Amp) -> Judge:
        """The judge that runs a folder's weights with PyTorch."""
        try:
            import torch
        except ModuleNotFoundError as error:
            raise MissingExtra("Judging with a folder of weights", "train") from error
        from beholder.features import device as devices
        from beholder.judge.store.folder import load_judge

        if threads is not None:
            torch.set_num_threads(threads)
        stored = load_judge(path)
        return cls.of_model(
            stored.model,
            devices.choose_device(device),
            beam_size=stored.beam_size,
            provenance=stored.provenance,
            amp=amp,
        )

    @classmethod
    def _of_file(
        cls, path: Path, device: str | None, backend: Backend, threads: int | None
    ) -> Judge:
        """The judge that runs an exported file."""
        from beholder.judge.runtime.backends import open_graphs
        from beholder.judge.runtime.graph_engine import GraphEngine
        from beholder.judge.store.graph_check import check_graphs
        from beholder.judge.store.packed import read_packed

        packed = read_packed(path)
        manifest, vocabulary = packed.manifest, packed.vocabulary
        graphs = open_graphs(packed.graphs, backend, threads, device)
        check_graphs(graphs, manifest, len(vocabulary) if vocabulary else None, str(path))
        writers = 0 if vocabulary is None else manifest.writers
        return cls(
            GraphEngine(graphs, tuple(manifest.classes), writers),
            packed.transform,
            classes=manifest.classes,
            multi_label=manifest.multi_label,
            vocabulary=vocabulary,
            calibration=manifest.calibration,
            views=manifest.views,
            generation=GenerationConfig.of_judge(
                vocabulary, manifest.max_length, manifest.beam_size
            ),
            score_range=manifest.score_range,
            rating_bins=manifest.rating_bins,
            provenance=manifest.provenance,
        )

    @classmethod
    def from_hub(
        cls,
        repo: str,
        *,
        revision: str | None = None,
        device: str | None = None,
        token: str | None = None,
        endpoint: str | None = None,
    ) -> Judge:
        """Load a judge from the Hugging Face Hub; what is in its cache is not fetched again.

        Args:
            repo: `owner/name`.
            revision: branch, tag or commit; None: the main branch.
            device: as for `load`.
            token: for private repositories; None: that of `hf auth login`.
            endpoint: of another Hub than huggingface.co.

        Raises:
            JudgeError: it can't be fetched, or is not a whole judge.
            MissingExtra: huggingface_hub is not installed.
        """
        from beholder.judge.store.hub import download

        path = download(repo, revision=revision, token=token, endpoint=endpoint)
        judge = cls.load(path, device)
        judge.identity = short_identity(path, repo)
        return judge

    def push_to_hub(
        self,
        repo: str,
        *,
        card: str | None = None,
        private: bool = False,
        token: str | None = None,
        endpoint: str | None = None,
    ) -> str:
        """Send the folder or file that this judge was loaded from to the Hugging Face Hub.

        Args:
            repo: `owner/name`; is made if there is none.
            card: README.md of the repository; None: that of an exported file, or what the judge
                knows of itself.

        Returns:
            The address of the commit.

        Raises:
            JudgeError: it was not loaded from anywhere, or can't be sent.
            MissingExtra: huggingface_hub is not installed.
        """
        from beholder.judge.store.hub import push

        return push(self, repo, card, private=private, token=token, endpoint=endpoint)

    @classmethod
    def of_model(
        cls,
        model: JudgeModel,
        device: torch.device,
        *,
        beam_size: int | None,
        provenance: Mapping[str, Any] | None = None,
        amp: Amp = "auto",
    ) -> Judge:
        """The judge that runs a network with PyTorch; the network moves to the device.

        Args:
            amp: as for `load`.
        """
        from beholder.judge.runtime.torch_engine import TorchEngine

        assert model.backbone is not None, "a judge without a backbone can't see"
        length = model.comment.config.max_length if "comment" in model.heads else 2
        judge = cls(
            TorchEngine(model, device, amp),
            model.backbone.transform,
            classes=model.classes if "attributes" in model.heads else {},
            multi_label=model.multi_label,
            vocabulary=model.vocabulary,
            calibration=model.config.calibration,
            views=model.config.views,
            generation=GenerationConfig.of_judge(model.vocabulary, length, beam_size or 1),
            score_range=model.score_range,
            rating_bins=model.config.score_grades if model.config.score is not None else (),
            provenance=provenance,
        )
        judge.beam_size = beam_size
        return judge

    @property
    def beam_size(self) -> int | None:
        """Beams when a comment is written; None: no comment."""
        return None if self.generation is None else self.generation.beam_size

    @beam_size.setter
    def beam_size(self, beam_size: int | None) -> None:
        self.generation = None
        if beam_size is not None and self._writes is not None:
            self.generation = self._writes.with_beams(beam_size)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a sequence of str, but is a path
        self, pictures: Picture, *, box: Box | None = None, batch_size: int = 16
    ) -> Verdict: ...
    @overload
    def __call__(
        self,
        pictures: Sequence[Picture],
        *,
        box: Sequence[Box | None] | None = None,
        batch_size: int = 16,
    ) -> list[Judged]: ...
    def __call__(
        self,
        pictures: Picture | Sequence[Picture],
        *,
        box: Box | Sequence[Box | None] | None = None,
        batch_size: int = 16,
    ) -> Verdict | list[Judged]:
        """The verdict on a picture, or on each of a list, in its order.

        Args:
            pictures: a path, the bytes of a file or a PIL image, or a list of them.
            box: what of the picture is judged, `(xmin, ymin, xmax, ymax)` in pixels of the upright
                picture; of a list one for each picture, or None for all of it.
            batch_size: pictures judged at a time.

        Returns:
            Of a list, a picture that can't be judged has a `Failure` in its place, with `image`,
            `code` and `message`; no other picture is affected.

        Raises:
            DataError: the boxes are not as many as the pictures.
            PictureError: the one picture that was asked for can't be used.
            OpinionError: what the networks say is not a number: of the one picture, or of all.
        """
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, not {batch_size}.")
        if isinstance(pictures, (str, Path, bytes, PIL.Image.Image)):
            (whole,) = boxes_of([pictures], [box])
            return self.verdicts([name_of(pictures)], [self.prepare(pictures, whole)])[0]
        boxes = boxes_of(pictures, box)
        names = map(name_of, pictures)
        requests = [Request(*parts) for parts in zip(names, pictures, boxes, strict=True)]
        return list(judge_pictures(self, requests, batch_size=batch_size))

    def prepare(self, picture: Picture, box: Box | None = None) -> NDArray[np.float32]:
        """Decode a picture and make its views the network's input [V, 3, H, W].

        Args:
            box: `(xmin, ymin, xmax, ymax)` in pixels of the upright picture; None: all of it.

        Raises:
            PictureError: it can't be used.
        """
        return read_views(self.transform, picture, self.views, box)

    def verdicts(self, names: Sequence[str], views: Sequence[NDArray[np.float32]]) -> list[Verdict]:
        """Verdicts on prepared pictures, reported under `names`.

        Args:
            views: of each picture, as `prepare` gives them [V, 3, H, W].

        Raises:
            OpinionError: an opinion is not a number, or there is none for a picture.
        """
        return self._verdicts(names, opinions_of_views(self.engine, views, self.generation))

    def explain(
        self,
        picture: Picture,
        opinion: str,
        *,
        label: str | None = None,
        box: Box | None = None,
    ) -> Explanation:
        """Which places of a picture speak for an opinion (Grad-CAM).

        Of several views (mirrored, crops) the first one is explained: the whole of the input.

        Args:
            opinion: an attribute's name, or `score`: what speaks for a higher one.
            label: the class to explain; None: the most probable one.
            box: as for `prepare`.

        Raises:
            PictureError: the picture can't be used.
            JudgeError: no such opinion or class, or what runs this judge can't tell.
        """
        self.check_opinion(opinion, label)
        engine = self.engine
        if not isinstance(engine, ExplainingEngine):
            raise unexplained()
        upright = read_image(picture)
        views = self.prepare(picture, box)
        index = None
        raw = opinions_of_views(engine, [views], None)
        (verdict,) = self._verdicts([name_of(picture)], raw)
        if opinion in self.classes:
            attribute = verdict.attributes[opinion]
            label = label or next(iter(attribute.probabilities))
            value, index = attribute.probabilities[label], self.classes[opinion].index(label)
        elif verdict.score is not None:
            value = verdict.score
        else:
            raise JudgeError("The judge gives no score that could be explained.")
        heat = scale_heat(engine.heat_map(views[0], opinion, index))
        region = self.transform.region(upright.size, box)
        placed = place_heat(heat, region, upright.size)
        return Explanation(name_of(picture), opinion, label, value, placed, upright)

    def explainable(self) -> list[str]:
        """The opinions that `explain` may be asked for."""
        if not isinstance(self.engine, ExplainingEngine):
            return []
        return [*self.classes, *(["score"] if self.score_range is not None else [])]

    def check_opinion(self, opinion: str, label: str | None = None) -> None:
        """Make sure that `explain` may be asked for an opinion.

        Raises:
            JudgeError: there is no such attribute or class; names those that there are.
        """
        labels = self.classes.get(opinion, ())
        if not labels and opinion != "score":
            raise JudgeError(
                f"The judge has no opinion {opinion!r} that could be explained.",
                fix=f"Use one of: {', '.join([*self.classes, 'score'])}.",
            )
        if label is not None and label not in labels:
            raise JudgeError(
                f"There is no class {label!r} of {opinion!r}.",
                fix=f"Use one of: {', '.join(labels)}." if labels else "Leave the class out.",
            )

    def _verdicts(self, names: Sequence[str], raw: HeadOutputs) -> list[Verdict]:
        """The verdicts that outputs stand for, if they are usable."""
        check_opinions(raw, self.classes, names, self.rating_bins)
        return verdicts_of(
            names, raw, self.classes, self.calibration, self.vocabulary, self.identity,
            self.score_range, self.multi_label, self.rating_bins,
        )  # fmt: skip
