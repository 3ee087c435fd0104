"""RAM's perception in bf16 on a processor, its gradient back through time written out.

A processor with a matrix unit multiplies bf16 so quickly that most of the time goes into what lies between the products: biases
copied, ReLUs as passes of their own, casts, the nodes of a graph. Here a look is three products, what lies side by side multiplied
at once, each with its bias and its ReLU; what they put out is kept on a tape, and the gradient walks back along it.
"""

from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hardattn.envs.cells import LSTMCell, ReluCell, State, squash_gates, through_gates
from hardattn.envs.perception import RamPerception
from hardattn.envs.precision import affine, set_mode

# The weights by name, in the order of `WrittenOut._apart`.
ENCODER = [f"{layer}.{part}" for layer in ("encode_pixels.1", "encode_location.0", "combine") for part in ("weight", "bias")]
CORES: dict[type[nn.Module], list[str]] = {
    LSTMCell: ["core.weight_ih", "core.weight_hh", "core.bias_ih"],
    ReluCell: ["core.input.weight", "core.recurrent.weight", "core.input.bias"],
}
CLASSIFIER = ["classify.weight", "classify.bias"]
SECOND = "core.bias_hh"  # of an LSTM's two biases, which are added

through_relu = torch.ops.aten.threshold_backward


class Looked(NamedTuple):
    """What a look put out, for its gradient."""

    parts: Tensor  # [B, S * C * g * g + 2]: the pixels and the location
    both: Tensor  # [B, 2 * encoder_width]: what and where
    seen: Tensor  # [B, glimpse_width]
    joined: Tensor  # [B, glimpse_width + core_width]: what was seen and h before
    h: Tensor  # [B, core_width]: h after
    cell: tuple[Tensor, ...]  # of an LSTM its gates, c before and tanh(c) after


def fits(network: nn.Module) -> TypeGuard[RamPerception]:
    """Whether `WrittenOut` knows this network: RAM as made with fully connected pixels; no subclass, which may look otherwise."""
    if type(network) is not RamPerception or type(network.core) not in CORES:
        return False
    encoders = [type(layer) for layer in (*network.encode_pixels, *network.encode_location)]
    return encoders == [nn.Flatten, nn.Linear, nn.Linear] and type(network.classify) is type(network.combine) is nn.Linear


class WrittenOut:
    """`look` and `read` of a RamPerception without a graph; `connect` makes what was read a function of its weights again.

    `dtype` is that of the products: bf16, or what a test compares with. A backward() that comes after the next episodes have begun
    raises ValueError: their weights and their tape have taken the place of those before.
    """

    def __init__(self, network: RamPerception, dtype: torch.dtype = torch.bfloat16) -> None:
        self.network, self.dtype = network, dtype
        self._lstm = isinstance(network.core, LSTMCell)
        self._take()
        what, combine, core, classify = (self._parameters[k] for k in (0, 4, 6, 9))
        self._pixels, self._seen = what.shape[1], len(combine)
        widths = [2 * len(what), len(combine), len(core), len(classify)]
        inputs = [what.shape[1] + 2, 2 * len(what), len(combine) + network.features, network.features]
        self._weights = [torch.zeros(out, into, dtype=dtype) for out, into in zip(widths, inputs, strict=True)]
        self._biases = [torch.zeros(out, dtype=dtype) for out in widths]
        self.tape: list[Looked] | None = None
        self._masks: list[Tensor] = []  # of dropout, one a look

    def _apart(self, weights: list[Tensor], biases: list[Tensor]) -> list[Tensor]:
        """Views of the joined layers, in the order of the network's own."""
        (encode, combine, core, classify), (encode_bias, combine_bias, core_bias, classify_bias) = weights, biases
        half = len(encode) // 2
        what, where = [encode[:half, : self._pixels], encode_bias[:half]], [encode[half:, self._pixels :], encode_bias[half:]]
        recurrent = [core[:, : self._seen], core[:, self._seen :], core_bias]
        return [*what, *where, combine, combine_bias, *recurrent, classify, classify_bias]

    def _take(self) -> None:
        """The network's weights as they are now: others may have taken their place."""
        named = dict(self.network.named_parameters())
        self._parameters: list[Tensor] = [named[name] for name in (*ENCODER, *CORES[type(self.network.core)], *CLASSIFIER)]
        self._second = [named[SECOND]] if self._lstm else []

    @torch.no_grad()
    def refresh(self, learning: bool) -> None:
        """Take the network's present weights for an episode, with a tape if it is `learning`, and put it in that mode."""
        set_mode(self.network, learning)
        self._take()
        torch._foreach_copy_(self._apart(self._weights, self._biases), self._parameters)
        for bias in self._second:
            torch.add(self._parameters[8], bias, out=self._biases[2])
        self.tape, self._masks = [] if learning else None, []

    def look(self, state: State | None, glimpse: Tensor, location: Tensor) -> State:
        """The state after a glimpse [B, S, C, g, g] at a location [B, 2]."""
        (encode, combine, core, _), (encode_bias, combine_bias, core_bias, _) = self._weights, self._biases
        h, *c = state or self._nothing(len(glimpse))
        parts = torch.cat([glimpse.flatten(1), location], dim=1).to(self.dtype)
        both = affine(parts, encode, encode_bias, relu=True)
        seen = affine(both, combine, combine_bias, relu=True)
        joined = torch.cat([seen, h], dim=1)
        after: State
        cell: tuple[Tensor, ...] = ()
        if self._lstm:
            gates = affine(joined, core, core_bias)
            h, later, squashed = squash_gates(gates, c[0])
            after, cell = (h.to(self.dtype), later), (gates, c[0], squashed)
        else:
            after = (affine(joined, core, core_bias, relu=True),)
        if self.tape is not None:
            self.tape.append(Looked(parts, both, seen, joined, after[0], cell))
        return after

    def _nothing(self, batch: int) -> State:
        """The state before the first look. c is in float32 at least, and so stays: its sums keep their digits from look to look."""
        h = torch.zeros(batch, self.network.features, dtype=self.dtype)
        return (h, h.to(torch.promote_types(self.dtype, torch.float32))) if self._lstm else (h,)

    def read(self, state: State) -> Tensor:
        """Class logits [B, K]. With dropout, ask once after each look."""
        h, rate = state[0], self.network.dropout.p
        if self.tape is not None and rate:
            self._masks.append(torch.empty_like(h).bernoulli_(1 - rate).div_(1 - rate))
            h = h * self._masks[-1]
        return affine(h, self._weights[3], self._biases[3])

    def __call__(self, method: str, *arguments: Any) -> Any:
        """The method of this name on these arguments."""
        with torch.no_grad():
            return getattr(self, method)(*arguments)

    def connect(self, logits: list[Tensor]) -> list[Tensor]:
        """The logits [B, K] after each look of the episodes just played, as functions of the weights where these learn."""
        if self.tape is None:
            return logits
        joined: tuple[Tensor, ...] = _BackThroughTime.apply(self, logits, *self._parameters, *self._second)  # type: ignore[no-untyped-call]
        return list(joined)

    def gradients(self, of_logits: tuple[Tensor | None, ...]) -> list[Tensor]:
        """Of the network's weights, from those of each look's logits [B, K]; None where these were not used."""
        assert self.tape is not None
        _, combine, core, classify = self._weights
        weights, biases = [torch.zeros_like(w) for w in self._weights], [torch.zeros_like(b) for b in self._biases]

        def add(layer: int, outputs: Tensor, inputs: Tensor) -> None:
            """What a layer's weight and bias get from the gradient of its outputs."""
            weights[layer].addmm_(outputs.T, inputs)
            biases[layer].add_(outputs.sum(dim=0))

        dh: Tensor | None = None  # what the looks that came after say of h
        dc: Tensor | None = None  # and of c
        for t in reversed(range(len(self.tape))):
            look, told = self.tape[t], of_logits[t]
            if told is not None:
                told = told.to(self.dtype)
                add(3, told, look.h * self._masks[t] if self._masks else look.h)
                said = told @ classify
                said = said.mul_(self._masks[t]) if self._masks else said
                dh = said if dh is None else said.add_(dh)
            if dh is None:
                continue
            if self._lstm:
                into, dc = through_gates(dh.to(look.cell[1].dtype), dc, *look.cell)
            else:
                into = through_relu(dh, look.h, 0)
            add(2, into, look.joined)
            seen, dh = (into @ core).split([look.seen.shape[1], look.h.shape[1]], dim=1)
            into = through_relu(seen, look.seen, 0)
            add(1, into, look.both)
            into = through_relu(into @ combine, look.both, 0)
            add(0, into, look.parts)
        return [*self._apart(weights, biases), *(biases[2] for _ in self._second)]


class _BackThroughTime(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, written: WrittenOut, logits: list[Tensor], *parameters: nn.Parameter) -> tuple[Tensor, ...]:
        ctx.written, ctx.tape, ctx.dtype = written, written.tape, parameters[0].dtype
        ctx.set_materialize_grads(False)
        return tuple(after.detach() for after in logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_logits: Tensor | None) -> tuple[Tensor | None, ...]:
        """The weights' gradients, in the network's own type."""
        if ctx.written.tape is not ctx.tape:
            raise ValueError("backward() after the next episodes had begun: take the gradient of loss() before reset() and step()")
        return None, None, *(gradient.to(ctx.dtype) for gradient in ctx.written.gradients(of_logits))
