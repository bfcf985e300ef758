"""Graphs that would make a runtime read files, loop or load operators are refused first."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import onnx
import pytest
from hand_made import heads, picture, trunk, write_judge
from onnx import ModelProto, TensorProto, helper

from beholder import Judge
from beholder.errors import JudgeError
from beholder.judge.runtime.backends import BACKENDS, open_graphs
from beholder.judge.store.graph_proto import MOST_NODES, OPERATORS, check_plain


def within(operator: str) -> Callable[[ModelProto], None]:
    """Adds a node with a graph of its own: a loop of this one would never end."""

    def change(model: ModelProto) -> None:
        true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
        body = helper.make_graph(
            [helper.make_node("Identity", ["again"], ["go_on"])],
            "body",
            [
                helper.make_tensor_value_info("turn", TensorProto.INT64, []),
                helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            ],
            [helper.make_tensor_value_info("go_on", TensorProto.BOOL, [])],
        )
        model.graph.initializer.append(true)
        model.graph.node.append(helper.make_node(operator, ["", "true"], [], body=body))

    return change


def external(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "../x.bin", length=12)
    tensor.ClearField("raw_data")


def named_only(model: ModelProto) -> None:
    """The entry without the location that goes with it."""
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def external_constant(model: ModelProto) -> None:
    tensor = onnx.TensorProto(data_type=1, dims=[3], data_location=TensorProto.EXTERNAL)
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def functions(model: ModelProto) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    model.functions.append(
        helper.make_function("ai.onnx", "Mine", ["x"], ["y"], [node], model.opset_import)
    )


def domain(model: ModelProto) -> None:
    model.graph.node[0].domain = "com.example.evil"


def contributed(model: ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"


def operator(model: ModelProto) -> None:
    model.graph.node[0].op_type = "Nonesuch"


def sparse(model: ModelProto) -> None:
    model.graph.sparse_initializer.add().dims.append(3)


def sequence(model: ModelProto) -> None:
    """An input of sequences of sequences, ninety deep."""
    kind = model.graph.input[0].type
    for _ in range(90):
        kind = kind.sequence_type.elem_type
    kind.tensor_type.elem_type = 1


def referring(model: ModelProto) -> None:
    model.graph.node[-1].attribute[0].ref_attr_name = "of_a_function"


def test_names_that_are_not_utf_8_are_refused() -> None:
    content = heads().SerializeToString()
    for name in (b"weight", b"pooled", b"logits", b"Softmax", b"heads"):
        assert name in content
        with pytest.raises(JudgeError, match=r"not UTF-8|'Softma"):
            check_plain("heads", content.replace(name, name[:-1] + b"\xbf"))


HOSTILE = [
    (external, "outside of itself"), (named_only, "outside of itself"),
    (external_constant, "outside of itself"), (functions, "functions"),
    (domain, "domain 'com.example.evil'"), (contributed, "domain 'com.microsoft'"),
    (operator, "operator 'Nonesuch'"), (within("Loop"), "graph within|'Loop'"),
    (within("If"), "graph within|'If'"), (within("Relu"), "graph within"), (sparse, "sparse"),
    (sequence, "a sequence"), (referring, "functions"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_a_hostile_graph_is_refused_before_a_session_is_made(
    change: Callable[[ModelProto], None], message: str, tmp_path: Path
) -> None:
    model = heads()
    change(model)
    path = write_judge(tmp_path / "judge", {"heads": model.SerializeToString()})
    for backend in BACKENDS:
        with (
            patch("beholder.judge.runtime.onnxruntime_graph.InferenceSession") as session,
            pytest.raises(JudgeError, match=message) as refused,
        ):
            Judge.load(path, backend=backend)
        assert refused.value.what.startswith("The judge's graph heads ")
        assert refused.value.what.count("\n") == 0
        session.assert_not_called()


def test_plain_graphs_are_let_through(tmp_path: Path) -> None:
    path = write_judge(tmp_path / "judge")
    verdict = Judge.load(path)(picture(tmp_path / "a.png"))
    assert verdict.score is not None
    for model in (trunk(), heads()):
        check_plain("g", model.SerializeToString())
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))  # as ORT's tools leave
        check_plain("g", model.SerializeToString())


def test_a_message_that_comes_twice_is_looked_at_twice() -> None:
    """A parser joins two graphs of a model: the second half must not slip through."""
    first, second = heads(), ModelProto()
    second.graph.node.append(helper.make_node("Mine", ["pooled"], ["x"], domain="evil"))
    joined = first.SerializeToString() + second.SerializeToString()
    assert onnx.load_from_string(joined).graph.node[-1].domain == "evil"
    with pytest.raises(JudgeError, match=r"evil|Mine"):
        check_plain("heads", joined)


def test_every_truncation_is_refused_in_words() -> None:
    content = heads().SerializeToString()
    check_plain("heads", content)
    refused = 0
    for length in range(len(content)):
        try:
            check_plain("heads", content[:length])
        except JudgeError as error:
            refused += 1
            assert re.match("The judge's graph heads (is|has|holds) ", error.what)
    assert refused >= len(content) - 3  # the operator sets come last, and may be missing


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no graph"),
        (b"\xff" * 40, "too long"),
        (b"\x08", "middle of a number"),
        (b"\x3a\xff\xff\xff\xff\x0f", "middle of a field"),
        (b"\x3b\x3b\x3b", "wire type 3"),
        (b"\x38\x01", "field 7 of a model has wire type 0"),
        (b"\xfa\x7f\x00", "unknown field"),
        (b"\x08\x09\x12\x06ORTM", "another format"),
        (b"\x12\x08\x0a\x04TFL3", "no graph|another format"),
        (b"<?xml version='1.0'?><net/>", "damaged"),
        (b"\x24\x00\x00\x00TFL3" + b"\x00" * 40, "another format"),
        # groups within groups, which a parser enters: not one is entered here
        (b"\x3a\xa0\x8d\x06" + b"\x0b" * 100_000, "wire type 3"),
    ],
)
def test_what_is_no_onnx_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(JudgeError, match=message):
        check_plain("trunk", content)


def test_graphs_of_too_many_nodes_are_refused() -> None:
    node = b"\x0a\x00"
    graph = node * (MOST_NODES + 2)
    length = bytes([len(graph) & 0x7F | 0x80, len(graph) >> 7 & 0x7F | 0x80, len(graph) >> 14])
    with pytest.raises(JudgeError, match="nodes"):
        check_plain("trunk", b"\x3a" + length + graph)


def test_the_operators_are_onnx_own_and_hold_no_graph() -> None:
    newest = {}
    for schema in onnx.defs.get_all_schemas():
        if schema.domain == "":
            newest[schema.name] = schema
    assert newest.keys() >= OPERATORS - {"Upsample"}
    for name in OPERATORS & newest.keys():
        kinds = {attribute.type for attribute in newest[name].attributes.values()}
        assert not kinds & {onnx.defs.OpSchema.AttrType.GRAPH, onnx.defs.OpSchema.AttrType.GRAPHS}


def test_a_good_graph_beside_a_hostile_one_is_not_opened_either() -> None:
    bad = heads()
    domain(bad)
    with (
        patch("beholder.judge.runtime.onnxruntime_graph.InferenceSession") as session,
        pytest.raises(JudgeError),
    ):
        open_graphs(
            {"trunk": trunk().SerializeToString(), "heads": bad.SerializeToString()}, "onnxruntime"
        )
    session.assert_not_called()
