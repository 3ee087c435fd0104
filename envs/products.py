"""Matrix products of layers by the library that is quickest at them on this processor.

torch gives a CPU's products in bf16 to oneDNN and those in float32 to MKL. oneDNN adds the bias and takes the ReLU as it writes the
product out; and on AMD's processors with AVX512 it is twice as quick in float32 too, because MKL keeps to AVX2 there.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@functools.cache
def fused() -> bool:
    """Whether torch has a layer in one call, as its own compiler uses it, and this processor runs it in bf16."""
    one = torch.ones(1, 1, dtype=torch.bfloat16)
    try:
        torch.ops.mkldnn._linear_pointwise(one, one, one[0], "relu", [], "")
    except (AttributeError, RuntimeError):
        return False
    return True


@functools.cache
def _mkl_is_slow() -> bool:
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkl.is_available():
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text() and fused()
    except OSError:
        return False


def quick_in_float32() -> bool:
    """Whether oneDNN is the one to ask in float32 too; not where `torch.backends.mkldnn.enabled` is off."""
    return _mkl_is_slow() and bool(torch.backends.mkldnn.enabled)


def by_onednn(inputs: Tensor) -> bool:
    """Whether oneDNN, and not MKL or torch itself, is to work on these inputs."""
    if inputs.device.type != "cpu":
        return False
    return fused() if inputs.dtype == torch.bfloat16 else inputs.dtype == torch.float32 and quick_in_float32()


def _mkl_is_passed_over(inputs: Tensor) -> bool:
    return inputs.dtype == torch.float32 and by_onednn(inputs)


def affine(inputs: Tensor, weight: Tensor, bias: Tensor, relu: bool = False) -> Tensor:
    """A layer of inputs [N, I] with weight [O, I] and bias [O], or its ReLU: [N, O], no graph. oneDNN's ReLU of NaN is 0."""
    if by_onednn(inputs):
        return _one_call(inputs, weight, bias, relu)
    outputs = torch.addmm(bias, inputs, weight.T)
    return outputs.relu_() if relu else outputs


def product(left: Tensor, right: Tensor) -> Tensor:
    """The product of left [N, K] and right [K, M], no graph."""
    return _one_call(left, right.T, None, False) if _mkl_is_passed_over(left) else left @ right


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add to total [N, M] the product of left [N, K] and right [K, M], no graph."""
    if _mkl_is_passed_over(left):
        total.add_(product(left, right))
    else:
        total.addmm_(left, right)


def _one_call(inputs: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    # With gaps between the rows of the weight, as in a part of a wider one, the call takes a thousand times as long.
    dense = weight if weight.is_contiguous() or weight.T.is_contiguous() else weight.contiguous()
    outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, dense, bias, "relu" if relu else "none", [], "")
    return outputs


def through_relu(gradient: Tensor, outputs: Tensor) -> Tensor:
    """The gradient of a ReLU's inputs from that of its outputs, all [N, O].

    Numbers in bf16 are above 0 where their bits, read as whole numbers, are: that needs no casts.
    """
    through = torch.ops.aten.threshold_backward
    if gradient.dtype != torch.bfloat16:
        inputs: Tensor = through(gradient, outputs, 0)
        return inputs
    inputs = through(gradient.view(torch.int16), outputs.view(torch.int16), 0)
    return inputs.view(torch.bfloat16)


def tanh(inputs: Tensor, out: Tensor) -> Tensor:
    """`torch.tanh` into `out`; where MKL is slow at it, 2 sigmoid(2 x) - 1, which is off by some 1e-7."""
    if _mkl_is_passed_over(inputs):
        return torch.mul(inputs, 2, out=out).sigmoid_().mul_(2).sub_(1)
    return torch.tanh(inputs, out=out)


def layer(inputs: Tensor, weight: Tensor, bias: Tensor, relu: bool = False, known: Tensor | None = None) -> Tensor:
    """`affine` with its graph. Its ReLU leaves NaN as it is. What it puts out is not computed where that is `known` [N, O]."""
    outputs: Tensor = _Layer.apply(inputs, weight, bias, relu, known)  # type: ignore[no-untyped-call]
    return outputs


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(inputs: Tensor, weight: Tensor, bias: Tensor, relu: bool, known: Tensor | None) -> Tensor:
        """Outputs [N, O]."""
        if known is not None:
            return known.detach()
        outputs = affine(inputs, weight, bias)
        return outputs.relu_() if relu else outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the gradient needs."""
        entered, weight, _, relu, _ = inputs
        ctx.save_for_backward(entered, weight, output if relu else None)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of inputs, weight and bias; by torch's own layers where these shall have a gradient themselves."""
        inputs, weight, outputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            into = gradient if outputs is None else gradient * (outputs > 0)
            return into @ weight, into.T @ inputs, into.sum(dim=0), None, None
        into = gradient if outputs is None else through_relu(gradient, outputs)
        before = product(into, weight) if ctx.needs_input_grad[0] else None
        return before, product(into.T, inputs), into.sum(dim=0), None, None
