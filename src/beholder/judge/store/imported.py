"""A judge from what the published ExpansionNet v2 training has written: `beholder import`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from beholder.data.files import sha256_file
from beholder.data.vocabulary import Vocabulary
from beholder.errors import CheckpointError, OutputError, VocabularyError
from beholder.features.backbones import Backbone
from beholder.judge.model import JudgeConfig, JudgeModel
from beholder.judge.store.folder import is_judge, save_judge
from beholder.models.expansionnet import ExpansionNet
from beholder.models.expansionnet_config import ExpansionNetConfig
from beholder.models.reference import (
    ReferenceCheckpoint,
    infer_config,
    read_reference_checkpoint,
    read_reference_vocabulary,
    reference_backbone,
)


def import_reference(
    checkpoints: Sequence[Path],
    vocabulary: Path,
    target: Path,
    *,
    backbone: Path | None = None,
    heads: int = 8,
    enc_expansions: Sequence[int] | None = None,
    beam_size: int = 5,
) -> JudgeConfig:
    """Write the judge that published checkpoints make; several write together, as an ensemble.

    Args:
        checkpoints: of one configuration, end to end or of bodies alone.
        vocabulary: the published pickle of words.
        target: the judge's folder.
        backbone: checkpoint whose Swin the bodies see with; None: every checkpoint has its own.
        heads, enc_expansions: what shapes don't tell, see `infer_config`.
        beam_size: beams when the judge writes a comment.

    Returns:
        The configuration that was found.

    Raises:
        CheckpointError: missing, damaged, no backbone, or of different configurations.
        VocabularyError: damaged, or of another number of words.
        BackboneError: the backbone does not fit a Swin of timm.
        OutputError: `target` is there and is not a judge.
    """
    if target.exists() and not is_judge(target):
        raise OutputError(
            "There is something else already.",
            where=str(target),
            fix="Name a folder that does not exist, or a judge to replace.",
        )
    words = read_reference_vocabulary(vocabulary)
    read = [read_reference_checkpoint(path) for path in checkpoints]
    config = infer_config(read[0].body, heads=heads, enc_expansions=enc_expansions)
    _check_words(config, words, vocabulary)
    pairs = zip(read, checkpoints, strict=True)
    bodies = [_body(config, checkpoint, path) for checkpoint, path in pairs]
    backbones = _backbones(read, checkpoints, backbone)
    first, *others = backbones
    judge = JudgeConfig(
        backbone=first.config,
        pooled_dim=first.pooled_dim,
        token_dim=first.token_dim,
        comment=config,
        ensemble=len(bodies),
        own_backbones=len(backbones) > 1,
        vocabulary=words.to_dict(),
    )
    model = JudgeModel(judge, first, others)
    model.comment.load_state_dict(bodies[0].state_dict())
    for other, body in zip(model.others, bodies[1:], strict=True):
        other.get_submodule("comment").load_state_dict(body.state_dict())
    sources = [*checkpoints, vocabulary, *([backbone] if backbone else [])]
    provenance = {"imported": {path.name: sha256_file(path) for path in sources}}
    save_judge(model.eval(), target, beam_size=beam_size, provenance=provenance)
    return judge


def _check_words(config: ExpansionNetConfig, words: Vocabulary, path: Path) -> None:
    if len(words) != config.vocab_size:
        raise VocabularyError(
            f"The vocabulary has {len(words)} words, the checkpoint was trained with "
            f"{config.vocab_size}.",
            where=str(path),
            fix="Give the vocabulary that was made for this training.",
        )


def _body(config: ExpansionNetConfig, read: ReferenceCheckpoint, path: Path) -> ExpansionNet:
    body = ExpansionNet(config)
    try:
        body.load_reference_state_dict(read.body)
    except CheckpointError as error:
        raise CheckpointError(error.what, where=f"{path}: {error.where}", fix=error.fix) from error
    return body


def _backbones(
    read: Sequence[ReferenceCheckpoint], paths: Sequence[Path], shared: Path | None
) -> list[Backbone]:
    """One for all bodies, or each body's own."""
    if shared is not None:
        return [_backbone(read_reference_checkpoint(shared), shared)]
    backbones = [_backbone(checkpoint, path) for checkpoint, path in zip(read, paths, strict=True)]
    expected = backbones[0].config
    for backbone, path in zip(backbones, paths, strict=True):
        if backbone.config != expected:
            raise CheckpointError(
                "Checkpoints that write together need backbones of one configuration.",
                where=str(path),
                fix=f"{paths[0]} has {expected.name} at {expected.size} pixels.",
            )
    return backbones


def _backbone(read: ReferenceCheckpoint, path: Path) -> Backbone:
    if not read.swin:
        raise CheckpointError(
            "The checkpoint holds no backbone: it was trained on features.",
            where=str(path),
            fix="Name the checkpoint whose Swin made those features with --backbone.",
        )
    return reference_backbone(read.swin, str(path))
