"""The recurrent cores of perception: one step from what was seen and the state before, None at the first look."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

State = tuple[Tensor, ...]  # each [B, ...]; what perception remembers of the looks so far


class ReluCell(nn.Module):
    """RAM's core for classification: h' = ReLU(W h + V g + b) (Mnih et al. 2014, section 4)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, width)
        self.recurrent = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.recurrent.weight)  # identity start keeps early looks in memory (Le et al. 2015)

    def forward(self, seen: Tensor, state: State | None = None) -> State:
        """What was seen, [B, inputs], and (h,) -> (h',), each [B, width]."""
        hidden: Tensor = self.input(seen)
        if state is not None:
            hidden = hidden.addmm_(state[0].to(hidden.dtype), self.recurrent.weight.T)
        return (hidden.relu_(),)


class LSTMCell(nn.LSTMCell):
    """`nn.LSTMCell` to the bit, of batches and with biases, its gradient written out.

    On a CPU torch composes the cell of some twenty operations, each with new memory in both directions. Elsewhere this is torch's,
    which a GPU has in one piece, and so it is in half precision.
    """

    def forward(self, seen: Tensor, state: Any = None) -> tuple[Tensor, Tensor]:
        """What was seen, [B, inputs], and (h, c) -> (h', c'), each [B, width]."""
        if seen.device.type != "cpu" or seen.dtype in (torch.bfloat16, torch.float16):
            return super().forward(seen, state or self._zeros(seen))
        h, c = state or (None, None)
        weights = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        after: tuple[Tensor, Tensor] = _Lstm.apply(seen, h, c, *weights)  # type: ignore[no-untyped-call]
        return after

    def _zeros(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """(h, c) before the first look. Under autocast in float32: a CPU's sums then keep its digits from look to look."""
        dtype = torch.float32 if torch.is_autocast_enabled(seen.device.type) else seen.dtype
        zeros = seen.new_zeros(len(seen), self.hidden_size, dtype=dtype)
        return zeros, zeros


def squash_gates(gates: Tensor, c: Tensor | None, tanh: Callable[..., Tensor] = torch.tanh) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM's (h', c', tanh(c')), each [B, H], from its gates [B, 4 H] before they are squashed, which happens in place."""
    i, f, g, o = gates.chunk(4, dim=1)
    for gate in (i, f, o):
        gate.sigmoid_()
    tanh(g, out=g)
    after = i * g if c is None else (f * c).add_(i * g)
    squashed = tanh(after, out=torch.empty_like(after))
    return o * squashed, after, squashed


def through_gates(dh: Tensor, dc: Tensor | None, gates: Tensor, c: Tensor | None, squashed: Tensor) -> tuple[Tensor, Tensor | None]:
    """Back through `squash_gates`: the gradients of the gates before they were squashed, [B, 4 H], and of c, if there was one."""
    i, f, g, o = gates.chunk(4, dim=1)
    through_sigmoid, through_tanh = torch.ops.aten.sigmoid_backward.grad_input, torch.ops.aten.tanh_backward.grad_input
    into = torch.empty_like(gates)
    di, df, dg, do = into.chunk(4, dim=1)
    through_sigmoid(torch.mul(dh, squashed, out=do), o, grad_input=do)
    inner = dh * o
    inner = through_tanh(inner, squashed, grad_input=inner)
    inner = inner if dc is None else inner.add_(dc)
    through_sigmoid(torch.mul(inner, g, out=di), i, grad_input=di)
    through_tanh(torch.mul(inner, i, out=dg), g, grad_input=dg)
    if c is None:
        df.zero_()
        return into, None
    through_sigmoid(torch.mul(inner, c, out=df), f, grad_input=df)
    return into, inner.mul_(f)


class _Lstm(torch.autograd.Function):
    """Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; each operation and its order are those of torch."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor | None, c: Tensor | None, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(h', c') of x [B, inputs] and of h, c [B, H], or None for zeros."""
        gates = torch.addmm(b_x, x, w_x.T)  # [B, 4 H]
        gates = gates.add_(b_h) if h is None else torch.addmm(b_h, h, w_h.T).add_(gates)
        h_after, c_after, squashed = squash_gates(gates, c)
        ctx.save_for_backward(x, h, c, w_x, w_h, gates, squashed)
        return h_after, c_after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of what `forward` was given, in its order."""
        x, h, c, w_x, w_h, gates, squashed = ctx.saved_tensors
        into, dc_before = through_gates(dh, dc, gates, c, squashed)
        wants_x, _, _, wants_weights, *_ = ctx.needs_input_grad  # a frozen core's weights want none
        dx = into @ w_x if wants_x else None
        before = (None, None) if h is None else (into @ w_h, dc_before)
        if not wants_weights:
            return dx, *before, None, None, None, None
        bias = into.sum(dim=0)
        return dx, *before, into.T @ x, None if h is None else into.T @ h, bias, bias.clone()
