"""On a CPU: an update written down operation by operation, and from then on run by torch's interpreter without Python.

Of an update in a batch of 128 on a fast processor, half the time is Python: deciding again, a thousand times, which small
operation comes next. Here it runs once while every operation that reaches the processor, those of gradients and optimisers
included, is noted as a line of a program. Like a CUDA graph it repeats what was done and nothing that Python decided, and the
same to the bit: the same kernels in the same order.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

ops = torch.ops.aten
SAME = (ops.detach.default, ops.alias.default)  # another name for the same numbers, which only a graph can tell apart
GRAD_MODE = (ops.mkldnn_rnn_layer.default,)  # what they keep for a gradient they keep only where gradients are enabled
READS = "it reads a number off the device"
LAYOUTS = {torch.contiguous_format: 0, torch.preserve_format: 1, torch.channels_last: 2, torch.channels_last_3d: 3}


class Refused(Exception):
    """What cannot be written down."""


class WritingDown(TorchDispatchMode):
    """While it is entered, what runs is written down. `refused` says why that came to nothing; what runs is not disturbed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.refused = ""
        self._graph = torch._C.Graph()
        self._names: Any = WeakIdKeyDictionary()  # of tensors, which live no longer for it: a gradient that others hold is copied
        self._constants: dict[tuple[type, str], Any] = {}
        self._inputs: list[Tensor | torch.Generator] = []  # what was there before
        self._generators: dict[int, Any] = {}  # their names, by identity
        self._effects: list[Any] = []  # to be done though nothing comes of them: questions, and draws, which move a generator on
        self._read_as: dict[int, Tensor] = {}  # by its address, memory that was read as another type
        self._minds_grad_mode = False

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and write it down."""
        keywords = keywords or {}
        told = operation(*arguments, **keywords)
        if not self.refused and operation.namespace != "profiler":
            try:
                self._write(operation, arguments, keywords, told)
            except (Refused, RuntimeError, TypeError, KeyError, AttributeError) as error:
                self.refused = f"{operation}: {' '.join(str(error).split())}"
        return told

    def program(self, metrics: Mapping[str, Any]) -> "Program | None":
        """What was written, telling these metrics, numbers or tensors of one number; None if it was refused."""
        if self.refused:
            return None
        names = [name for name, value in metrics.items() if isinstance(value, Tensor)]
        try:
            told = [self._value(metrics[name], None) for name in names]
            outputs = self._insert("prim::ListConstruct", [*told, *self._effects], 1).output()
            outputs.setType(torch.ListType(torch.TensorType.get()))
            self._graph.registerOutput(outputs)
            torch._C._jit_pass_dce(self._graph)  # what nothing comes of, such as a look's logits where the last alone are asked for
            run = torch._C._create_function_from_graph("update", self._graph)
        except (RuntimeError, AttributeError) as error:
            self.refused = str(error).strip().partition("\n")[0]
            return None
        return Program(run, self._inputs, names, dict(metrics), self._minds_grad_mode)

    def _write(self, operation: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any], told: Any) -> None:
        schema = operation._schema
        if torch.Tag.inplace_view in operation.tags:
            raise Refused("it gives a tensor another shape in place")
        if operation in SAME:
            self._name(told, self._value(arguments[0], None))
            return
        if operation is ops.view.dtype:
            self._name(told, self._reinterpreted(arguments[0], told))
            return
        self._minds_grad_mode |= operation in GRAD_MODE
        given = []
        for place, wanted in enumerate(schema.arguments):
            value = arguments[place] if place < len(arguments) else keywords.get(wanted.name, wanted.default_value)
            written = wanted.alias_info is not None and wanted.alias_info.is_write
            if written and any(_memory(part) in self._read_as for part in (value if isinstance(value, list | tuple) else [value])):
                raise Refused("it writes where memory was read as another type")  # the interpreter thinks of them as apart
            given.append(self._value(value, wanted.type))
        if operation is ops._assert_async.msg:
            self._effects.append(self._insert("aten::_functional_assert_async", [*given, given[0]], 1).output())
            return
        node = self._insert(schema.name, given, len(schema.returns))
        if torch.Tag.nondeterministic_seeded in operation.tags:
            self._effects += list(node.outputs())
        for output, kind, value in zip(node.outputs(), schema.returns, _each(told, len(schema.returns)), strict=True):
            if isinstance(value, Tensor):
                self._name(value, output)
            elif isinstance(value, list | tuple) and all(isinstance(part, Tensor) for part in value):
                output.setType(kind.type)
                parts = self._insert("prim::ListUnpack", [output], len(value))
                for part, name in zip(value, parts.outputs(), strict=True):
                    self._name(part, name)
            elif value is not None:
                raise Refused(READS)

    def _insert(self, kind: str, given: list[Any], outputs: int) -> Any:
        return self._graph.insertNode(self._graph.create(kind, given, outputs))

    def _name(self, tensor: Tensor, name: Any) -> None:
        if tensor not in self._names:  # else it was written to in place
            self._names[tensor] = name

    def _value(self, value: Any, wanted: Any) -> Any:
        """The name of an argument, which the schema wants to be of this type."""
        if wanted is not None and wanted.kind() == "OptionalType" and value is not None:
            wanted = wanted.getElementType()
        if isinstance(value, Tensor):
            if value not in self._names:
                self._names[value] = self._input(value)
            return self._names[value]
        if isinstance(value, torch.Generator):
            if id(value) not in self._generators:
                self._generators[id(value)] = self._input(value)
                self._generators[id(value)].setType(wanted)
            return self._generators[id(value)]
        if isinstance(value, list | tuple):
            return self._list(value, wanted)
        kind = None if wanted is None else wanted.kind()
        if kind == "ListType":  # one number for each axis
            return self._list([value], wanted)
        if kind == "FloatType":
            value = float(value)
        elif kind == "NumberType" and isinstance(value, bool):
            value = int(value)
        return self._constant(LAYOUTS.get(value, value) if isinstance(value, torch.memory_format) else value)

    def _input(self, value: Tensor | torch.Generator) -> Any:
        self._inputs.append(value)
        return self._graph.addInput()

    def _constant(self, value: Any) -> Any:
        key = type(value), repr(value)
        if key not in self._constants:
            self._constants[key] = self._graph.insertConstant(value)  # type: ignore[attr-defined]
        return self._constants[key]

    def _list(self, values: Any, wanted: Any) -> Any:
        if values and all(type(value) is int for value in values) and wanted.getElementType().kind() == "IntType":
            return self._constant(list(values))
        built = self._insert("prim::ListConstruct", [self._value(value, wanted.getElementType()) for value in values], 1).output()
        built.setType(wanted)
        return built

    def _reinterpreted(self, tensor: Tensor, told: Tensor) -> Any:
        """`tensor.view(dtype)`, which the interpreter lacks: an empty tensor of that type that is given the other's memory."""
        if tensor.element_size() != told.element_size():
            raise Refused("it reads memory as numbers of another width")
        self._read_as[_memory(told)] = told  # which lives on, or other memory could come to lie there
        nothing = [self._constant(value) for value in ([0], told.dtype, None, None, None, None)]
        empty = self._insert("aten::empty", nothing, 1).output()
        return self._insert("aten::set_", [empty, self._value(tensor, None)], 1).output()


class Program:
    """An update as it was written down."""

    def __init__(self, run: Any, inputs: list[Any], names: list[str], metrics: dict[str, Any], grad_mode: bool) -> None:
        # Without their graphs, in which what is written would have no place.
        self._inputs = [value.detach() if isinstance(value, Tensor) else value for value in inputs]
        self._run, self._names, self._mode = run, names, torch.enable_grad if grad_mode else torch.inference_mode
        self._metrics = {name: value for name, value in metrics.items() if name not in names}

    def __call__(self) -> dict[str, Any]:
        """Run it: a round on the tensors that it began with. Returns the metrics. Raises RuntimeError where an operation fails."""
        # Not compiled further: the interpreter's own optimiser watches the first runs and then makes them anew.
        with self._mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            told = self._run(*self._inputs)
        return self._metrics | dict(zip(self._names, told, strict=False))  # then come effects


def _each(told: Any, returns: int) -> Any:
    return told if returns > 1 else [told] * returns


def _memory(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address
