"""What an exported judge's graph is to those who use it, whatever runtime runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray


class Graph(Protocol):
    """One graph, ready to run. Values stay in the runtime's memory until they are asked for.

    Attributes:
        inputs, outputs: name -> sizes of the axes; what is no int is any size.
    """

    @property
    def inputs(self) -> Mapping[str, Sequence[Any]]: ...
    @property
    def outputs(self) -> Mapping[str, Sequence[Any]]: ...

    def put(self, array: NDArray[Any]) -> Any:
        """An array as a value of the runtime."""
        ...

    def get(self, value: Any) -> NDArray[Any]:
        """A value of the runtime as an array."""
        ...

    def run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the runtime by name -> outputs by name, in the graph's order. What it gives
        stays as it is when the graph runs again."""
        ...
