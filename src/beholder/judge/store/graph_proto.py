"""Whether a file's ONNX graphs are plain ones, before any runtime reads them.

A runtime believes a graph: it opens the files that external tensors name, runs loops without an
end, and loads operators that others have registered. What Beholder exports needs none of it:
tensors in the graph itself, operators of `ai.onnx` alone, no function and no graph within a graph.
Anything else is refused here.

The light install has no `onnx`, so the wire format is read directly: see
https://protobuf.dev/programming-guides/encoding and the field numbers of `onnx.proto`. Nothing is
built; every occurrence of every field is looked at (a parser joins or replaces repeated ones), and
a field that is not known is refused, since a newer runtime may know it. The messages that are
entered can't hold themselves, so that the depth is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from beholder.errors import JudgeError

MOST_FIELDS = 2_000_000  # of a graph; a large backbone has a tenth
MOST_NODES = 100_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10  # bytes
# Other formats that runtimes tell by the bytes from the fifth on: ONNX Runtime's own and TFLite
_OTHER_FORMATS = (b"ORTM", b"TFL3")
_DOMAINS = (b"", b"ai.onnx")

# Operators of tensors to tensors that the exporter may write for a backbone or a head. Not among
# them: control flow, sequences and optionals, strings, chance, losses, decoders of pictures.
_OPERATORS = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
    BatchNormalization BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu
    CenterCropPad Clip Col2Im Compress Concat Constant ConstantOfShape Conv ConvInteger
    ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear
    Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul
    MatMulInteger Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonZero Not OneHot
    Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization Range Reciprocal
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare Relu Reshape Resize RotaryEmbedding Round ScatterElements ScatterND
    Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split
    Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample
    Where Xor
"""
OPERATORS = frozenset(_OPERATORS.split())


class _Malformed(Exception):
    """The bytes are not what the wire format allows."""


class _Refused(Exception):
    """What the graph holds that no export writes, as the end of a sentence."""


@dataclass(frozen=True)
class _Field:
    """What is known of a field.

    Args:
        wires: wire types it may have; a repeated number may be packed.
        enter: the kind of message it holds, if that is looked into.
        refused: said of a graph that has it.
        name: whether it is a name, and so must be UTF-8.
    """

    wires: tuple[int, ...] = (_BYTES,)
    enter: str | None = None
    refused: str | None = None
    name: bool = False


_NUMBER = _Field((_VARINT,))
_NUMBERS = _Field((_VARINT, _BYTES))
_NAME = _Field(name=True)
_TEXT = _Field()  # also messages that hold only names and numbers
_EXTERNAL = "keeps tensors outside of itself"
_WITHIN = "holds a graph within a graph"
_SPARSE = "holds sparse tensors"

_MESSAGES: Mapping[str, Mapping[int, _Field]] = {
    "model": {
        1: _NUMBER, 2: _TEXT, 3: _TEXT, 4: _TEXT, 5: _NUMBER, 6: _TEXT, 7: _Field(enter="graph"),
        8: _TEXT, 14: _TEXT, 20: _Field(refused="holds a training"),
        25: _Field(refused="holds functions"), 26: _Field(refused="is shared out over devices"),
    },
    "graph": {
        1: _Field(enter="node"), 2: _NAME, 5: _Field(enter="tensor"), 10: _TEXT,
        11: _Field(enter="value"), 12: _Field(enter="value"), 13: _Field(enter="value"),
        14: _TEXT, 15: _Field(refused=_SPARSE), 16: _TEXT,
    },
    "node": {
        1: _NAME, 2: _NAME, 3: _NAME, 4: _NAME, 5: _Field(enter="attribute"), 6: _TEXT, 7: _NAME,
        8: _Field(refused="calls functions"), 9: _TEXT,
        10: _Field(refused="is shared out over devices"),
    },
    "attribute": {
        1: _NAME, 2: _Field((_FIXED32,)), 3: _NUMBER, 4: _TEXT, 5: _Field(enter="tensor"),
        6: _Field(refused=_WITHIN), 7: _Field((_FIXED32, _BYTES)), 8: _NUMBERS, 9: _TEXT,
        10: _Field(enter="tensor"), 11: _Field(refused=_WITHIN), 13: _TEXT,
        14: _Field(refused="holds types as values"), 15: _Field(refused="holds types as values"),
        20: _NUMBER, 21: _Field(refused="calls functions"), 22: _Field(refused=_SPARSE),
        23: _Field(refused=_SPARSE),
    },
    "tensor": {
        1: _NUMBERS, 2: _NUMBER, 3: _Field(refused="holds parts of tensors"),
        4: _Field((_FIXED32, _BYTES)), 5: _NUMBERS, 6: _Field(refused="holds texts as tensors"),
        7: _NUMBERS, 8: _NAME, 9: _TEXT, 10: _Field((_FIXED64, _BYTES)), 11: _NUMBERS, 12: _TEXT,
        13: _Field(refused=_EXTERNAL), 14: _NUMBER, 16: _TEXT,
    },
    "value": {1: _NAME, 2: _Field(enter="type"), 3: _TEXT, 4: _TEXT},
    "type": {
        1: _TEXT, 4: _Field(refused="takes or gives a sequence"),
        5: _Field(refused="takes or gives a map"), 6: _TEXT,
        7: _Field(refused="takes or gives something opaque"),
        8: _Field(refused=_SPARSE), 9: _Field(refused="takes or gives an optional"),
    },
}  # fmt: skip
_OP_TYPE, _DOMAIN, _DATA_LOCATION = 4, 7, 14


class _Part(NamedTuple):
    """A message that is still to be looked into: where it begins and ends."""

    kind: str
    start: int
    end: int


def check_plain(name: str, content: bytes) -> None:
    """Refuse a graph that holds more than an export writes; takes a second for a large backbone.

    Args:
        name: of the graph, for the message.
        content: an ONNX file.

    Raises:
        JudgeError: it has external tensors, functions, other operators or domains, graphs within,
            more fields or nodes than any judge, or is no ONNX at all.
    """
    try:
        _walk(content)
    except _Malformed as error:
        raise JudgeError(
            f"The judge's graph {name} is damaged: {error}.", fix="Export the judge again."
        ) from error
    except _Refused as error:
        raise JudgeError(
            f"The judge's graph {name} {error}, which no export writes.",
            fix="Do not use this file, or export the judge again.",
        ) from error


def _walk(content: bytes) -> None:
    if content[4:8] in _OTHER_FORMATS:
        raise _Refused("is of another format than ONNX")
    parts = [_Part("model", 0, len(content))]
    fields = nodes = graphs = 0
    while parts:
        part = parts.pop()
        known = _MESSAGES[part.kind]
        graphs += part.kind == "graph"
        for number, wire, start, end in _fields(content, part.start, part.end):
            field = known.get(number)
            fields += 1
            nodes += field is not None and field.enter == "node"
            if fields > MOST_FIELDS or nodes > MOST_NODES:
                raise _Refused(f"has over {MOST_NODES:,} nodes or {MOST_FIELDS:,} fields")
            if field is None:
                raise _Refused(f"has the unknown field {number} in a {part.kind}")
            if wire not in field.wires:
                raise _Malformed(f"field {number} of a {part.kind} has wire type {wire}")
            if field.refused:
                raise _Refused(field.refused)
            if field.name and not _is_utf8(content[start:end]):
                raise _Malformed("a name is not UTF-8")
            if field.enter:
                parts.append(_Part(field.enter, start, end))
            elif part.kind == "node" and number in (_OP_TYPE, _DOMAIN):
                _check_node(number, content[start:end])
            elif part.kind == "tensor" and number == _DATA_LOCATION and content[start] != 0:
                raise _Refused(_EXTERNAL)
    if not graphs:
        raise _Malformed("it holds no graph")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _check_node(number: int, text: bytes) -> None:
    shown = ascii(text[:40].decode("utf-8", "replace"))
    if number == _DOMAIN and text not in _DOMAINS:
        raise _Refused(f"has operators of the domain {shown}")
    if number == _OP_TYPE and text.decode("utf-8", "replace") not in OPERATORS:
        raise _Refused(f"has the operator {shown}")


def _fields(content: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and first and last place of the value of each field of a message."""
    position = start
    while position < end:
        tag, position = _varint(content, position, end)
        number, wire = tag >> 3, tag & 7
        if wire == _BYTES:
            length, position = _varint(content, position, end)
            stop = position + length
        elif wire == _VARINT:
            _, stop = _varint(content, position, end)
        elif wire in (_FIXED32, _FIXED64):
            stop = position + (4 if wire == _FIXED32 else 8)
        else:
            raise _Malformed(f"wire type {wire} is none of ONNX")
        if stop > end:
            raise _Malformed("it ends in the middle of a field")
        yield number, wire, position, stop
        position = stop


def _varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    """A number of variable length, and the place behind it."""
    value = 0
    for index in range(_LONGEST_VARINT):
        if position + index >= end:
            raise _Malformed("it ends in the middle of a number")
        byte = content[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise _Malformed("a number is too long")
