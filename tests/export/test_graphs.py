"""Graphs of a judge: the step of one captioner, and of several, finds what PyTorch's finds."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor

from beholder.decoding import beam_search, search
from beholder.decoding.graph import Graph
from beholder.decoding.graph_step import GraphStep, largest
from beholder.export.graphs import Trunk, to_onnx
from beholder.features.backbones import create_backbone
from beholder.features.config import BackboneConfig
from beholder.judge.model import JudgeModel
from beholder.judge.runtime.backends import BACKENDS, open_graphs
from beholder.judge.store.graph_proto import OPERATORS, check_plain
from beholder.models.expansionnet import ExpansionNet

BOS, EOS = 2, 0


@pytest.fixture(scope="module")
def writers(
    model: JudgeModel, written_graphs: dict[str, Any]
) -> list[tuple[ExpansionNet, dict[str, Graph]]]:
    """The judge's captioner and two others of its shape, the ends of which are more likely, each
    with the graph of its step in each backend."""
    pairs = []
    for index in range(3):
        writer, graph = copy.deepcopy(model.comment), copy.deepcopy(written_graphs["step"])
        torch.manual_seed(index)
        with torch.no_grad():
            for parameter in writer.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1 * index)
            writer.output.bias[EOS] += 3 * index
        for tensor in graph.graph.initializer:
            name = tensor.name.removeprefix("writer.")
            if name != tensor.name:
                values = writer.get_parameter(name).detach().numpy()
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        changed = {
            backend.name
            for backend in graph.graph.initializer
            if backend.name.startswith("writer.")
        }
        decoding = [n for n, _ in writer.named_parameters() if not n.startswith(("input", "enc"))]
        # the graph has no part in what is made of the pictures
        assert len(changed) == sum("key_value" not in name for name in decoding)
        content = {"step": graph.SerializeToString()}
        pairs.append(
            (writer, {backend: open_graphs(content, backend)["step"] for backend in BACKENDS})
        )
    return pairs


def seen(writer: ExpansionNet, features_BNC: Tensor) -> dict[str, np.ndarray]:
    """What the graph `encoder` gives."""
    with torch.no_grad():
        memory = writer.picture_memory(writer.encode(features_BNC))
    return {
        **{f"keys.{i}": k.transpose(2, 3).numpy() for i, (k, _) in enumerate(memory.keys_values)},
        **{f"values.{i}": v.numpy() for i, (_, v) in enumerate(memory.keys_values)},
    }


@given(
    seed=st.integers(0, 1000),
    backend=st.sampled_from(BACKENDS),
    chosen=st.sampled_from([(0,), (1,), (2,), (0, 1), (2, 1, 0)]),
    pictures=st.integers(1, 4),
    beams=st.integers(1, 5),
    length=st.integers(2, 8),
)
@settings(max_examples=40, deadline=None)
def test_a_search_finds_what_it_finds_with_torch(
    writers: list[tuple[ExpansionNet, dict[str, Graph]]],
    seed: int, backend: str, chosen: tuple[int, ...], pictures: int, beams: int, length: int,
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    chosen_writers = [writers[index] for index in chosen]
    config = chosen_writers[0][0].config
    # tokens of 4 places instead of 4: whatever the graph was written with is what it takes
    features = torch.randn(pictures, 4, config.feature_dim, generator=generator)
    expected = beam_search(
        [writer for writer, _ in chosen_writers], features, beams, length, BOS, EOS, n_best=beams
    )
    step = GraphStep(
        [(graphs[backend], seen(writer, features)) for writer, graphs in chosen_writers]
    )
    actual = search(
        step, pictures, beam_size=beams, max_length=length, bos=BOS, eos=EOS, n_best=beams
    )
    for ours, theirs in zip(actual, expected, strict=True):
        assert [hypothesis.tokens for hypothesis in ours] == [
            hypothesis.tokens for hypothesis in theirs
        ]
        for hypothesis, expected_hypothesis in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(
                hypothesis.token_log_probs, expected_hypothesis.token_log_probs, atol=2e-5
            )


def test_no_picture_is_no_comment(
    writers: list[tuple[ExpansionNet, dict[str, Graph]]],
) -> None:
    writer, graphs = writers[0]
    nothing = seen(writer, torch.zeros(1, 4, writer.config.feature_dim))
    for graph in graphs.values():
        step = GraphStep([(graph, {name: array[:0] for name, array in nothing.items()})])
        assert search(step, 0, beam_size=2, max_length=5, bos=BOS, eos=EOS) == []


@given(
    rows=st.integers(1, 4), words=st.integers(1, 50), count=st.integers(1, 50),
    seed=st.integers(0, 100),
)  # fmt: skip
def test_the_largest_are_those_of_a_full_sort(rows: int, words: int, count: int, seed: int) -> None:
    scores = np.random.default_rng(seed).permutation(rows * words).reshape(rows, words)
    if count > words:
        with pytest.raises(ValueError, match="are wanted"):
            largest(scores, count)
        return
    values, chosen = largest(scores, count)
    np.testing.assert_array_equal(values, -np.sort(-scores, axis=1)[:, :count])
    np.testing.assert_array_equal(np.take_along_axis(scores, chosen, axis=1), values)


def test_graphs_hold_what_they_need_alone(
    model: JudgeModel, written_graphs: dict[str, Any]
) -> None:
    for graph in written_graphs.values():
        used = {name for node in graph.graph.node for name in node.input}
        assert {value.name for value in graph.graph.initializer} <= used
    numbers = sum(
        int(np.prod(value.dims))
        for graph in written_graphs.values()
        for value in graph.graph.initializer
    )
    assert numbers < 1.02 * sum(p.numel() for p in model.parameters()) + 500
    outputs = [value.name for value in written_graphs["trunk"].graph.output]
    assert outputs == ["pooled", "tokens"]
    assert [value.name for value in written_graphs["heads"].graph.output] == [
        "score", "probabilities.0", "probabilities.1",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        BackboneConfig(name="timm/test_vit", weights="random"),
        BackboneConfig(
            name="timm/swin_tiny_patch4_window7_224", weights="random", size=64, pooling="stages"
        ),
        BackboneConfig(name="efficientnet-lite0", weights="random", size=64, pooling="early"),
        BackboneConfig(name="timm/tiny_vit_5m_224", weights="random"),
    ],
    ids=lambda config: config.name,
)
def test_trunks_of_other_families(config: BackboneConfig) -> None:
    backbone = create_backbone(config)
    pixels = torch.randn(3, 3, *backbone.transform.size)
    graph = to_onnx(
        Trunk(backbone, ["pooled", "tokens"]), {"pixels": pixels[:2]}, ({0: "B"},),
        ["pooled", "tokens"],
    )  # fmt: skip
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    for count in (1, 3):
        with torch.inference_mode():
            seen = backbone(pixels[:count])
        pooled, tokens = session.run(None, {"pixels": pixels[:count].numpy()})
        for exported, reference in ((pooled, seen.pooled_BP), (tokens, seen.tokens_BNC)):
            spread = float(reference.max() - reference.min())
            np.testing.assert_allclose(exported / spread, reference.numpy() / spread, atol=1e-5)


def test_every_graph_passes_for_plain_and_has_only_operators_that_are_let_through(
    written_graphs: dict[str, Any],
) -> None:
    for name, graph in written_graphs.items():
        check_plain(name, graph.SerializeToString())
        assert {node.op_type for node in graph.graph.node} <= OPERATORS
