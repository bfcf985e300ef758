"""The interface of an exported judge's graph, the same for every runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

Axes = Mapping[str, Sequence[Any]]


class Graph(Protocol):
    """One graph, ready to run. Values stay in the runtime's memory until `get` fetches them.

    Attributes:
        inputs, outputs: name -> sizes of the axes; a size that is not an int may vary.
    """

    inputs: Axes
    outputs: Axes

    def put(self, array: NDArray[Any]) -> Any:
        """An array as a value of the runtime."""
        ...

    def get(self, value: Any) -> NDArray[Any]:
        """A value of the runtime as an array."""
        ...

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Input values of the runtime by name -> outputs by name, in the graph's order. Outputs
        stay valid when the graph runs again."""
        ...
