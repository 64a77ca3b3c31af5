"""Records operations of ONNX, one call each: `op.Add(x, 1)`.

Operators are those of the standard (onnx.ai), by their names; inputs first, attributes by name. A Python int is a
constant int64, a float a float32, and a NumPy array or number keeps its type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

Value = ir.Value
Input = Value | int | float | np.ndarray | np.generic | Sequence[int] | None
FLOAT, DOUBLE, INT, INT32, BYTE, BOOL = (
    int(kind)
    for kind in (
        ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.UINT8,
        ir.DataType.BOOL,
    )
)  # fmt: skip


class Ops:
    """Nodes of a graph, or of one inside a loop or a branch, in their order."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._tape, self._numbers, self._inner = Tape(), count(), count()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}

    @property
    def nodes(self) -> Sequence[ir.Node]:
        return self._tape.nodes

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        def record(*inputs: Input, outputs: int = 1, **attributes: Any) -> Any:
            given = [None if one is None else self.value(one) for one in inputs]
            made = [Value(name=f"{self.prefix}_{next(self._numbers)}") for _ in range(outputs)]
            self._tape.op_multi_out(kind, given, attributes, outputs=made, name=f"{made[0].name}_{kind}")
            return made[0] if outputs == 1 else made

        return record

    def value(self, given: Input) -> Value:
        """A constant for what isn't a value yet."""
        if isinstance(given, Value):
            return given
        array = np.asarray(given)
        if array.dtype == np.float64 and not isinstance(given, np.ndarray | np.generic):
            array = array.astype(np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            made = Value(name=f"{self.prefix}_{next(self._numbers)}")
            self._tape.op(
                "Constant", [], {"value": ir.tensor(array)}, output=made, name=f"{made.name}_Constant"
            )
            self._constants[key] = made
        return self._constants[key]

    def inner(self) -> Ops:
        """Of a graph inside this one, which may use this one's values."""
        return Ops(f"{self.prefix}_{next(self._inner)}")

    def as_graph(self, inputs: Sequence[Value], outputs: Sequence[tuple[Value, int]]) -> ir.Graph:
        """These nodes as an inner graph; outputs with their types."""
        made = []
        for value, kind in outputs:
            own = self.Identity(value)  # an outer value can't be an output
            own.type = ir.TensorType(ir.DataType(kind))
            made.append(own)
        return ir.Graph(inputs, made, nodes=self.nodes, name=self.prefix)

    def size(self, x: Value, axis: int) -> Value:
        """int64 [1]: the length of an axis."""
        return self.Shape(x, start=axis, end=axis + 1)

    def number(self, one: Value) -> Value:
        """[1] to a scalar."""
        return self.Squeeze(one)

    def shape(self, *lengths: Input) -> Value:
        """int64 [n] of lengths, numbers or [1] each."""
        return self.Concat(
            *(one if isinstance(one, Value) else np.array([one], np.int64) for one in lengths), axis=0
        )

    def range(self, stop: Value) -> Value:
        """int64 [stop]: 0, 1, ... of a length [1]."""
        return self.Range(0, self.number(stop), 1)

    def up_to_multiple(self, length: Value, divisor: int) -> Value:
        return self.Mul(self.Div(self.Add(length, divisor - 1), divisor), divisor)

    def rows_of(self, x: Value, indices: Value) -> Value:
        """[N, A, ...] and int64 [N, k] to [N, k, ...]."""
        return self.GatherND(x, self.Unsqueeze(indices, [-1]), batch_dims=1)
