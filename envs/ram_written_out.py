"""RAM's perception on a processor, its gradient back through time written out.

Some processors multiply bf16 so quickly that most of the time goes into what lies between the products: biases copied, ReLUs as
passes of their own, casts, the nodes of a graph. Here a look is three products, what lies side by side multiplied at once, each
with its bias and its ReLU; what they put out is kept on a tape, and the gradient walks back along it. Worlds take this for bf16,
and for float32 where oneDNN's products, which torch's own layers do not ask for, are quicker (`products.quick_in_float32`).
"""

from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hardattn.envs.cells import LSTMCell, ReluCell, State, squash_gates, through_gates
from hardattn.envs.perception import RamPerception
from hardattn.envs.precision import set_mode
from hardattn.envs.products import add_product, affine, product, tanh, through_relu

# The weights by name, in the order of `WrittenOut._apart`.
ENCODER = [f"{layer}.{part}" for layer in ("encode_pixels.1", "encode_location.0", "combine") for part in ("weight", "bias")]
CORES: dict[type[nn.Module], list[str]] = {
    LSTMCell: ["core.weight_ih", "core.weight_hh", "core.bias_ih"],
    ReluCell: ["core.input.weight", "core.recurrent.weight", "core.input.bias"],
}
CLASSIFIER = ["classify.weight", "classify.bias"]
SECOND = "core.bias_hh"  # of an LSTM's two biases, which are added
ENCODED_AT_ONCE = 1024  # rows that go back through the encoder together: a product has its fixed costs, but caches are small


class Looked(NamedTuple):
    """What a look put out, for its gradient."""

    parts: Tensor  # [B, S * C * g * g + 2]: the pixels and the location
    both: Tensor  # [B, 2 * encoder_width]: what and where
    joined: Tensor  # [B, glimpse_width + core_width]: what was seen and h before; at the first look what was seen
    h: Tensor  # [B, core_width]: h after
    cell: tuple[Tensor, Tensor | None, Tensor] | None  # of an LSTM its gates, c before and tanh(c) after


def fits(network: nn.Module) -> TypeGuard[RamPerception]:
    """Whether `WrittenOut` knows this network: RAM in float32 as made with fully connected pixels.

    Not a subclass, modules with hooks, or with a `forward`, `look` or `read` of their own: these may see otherwise.
    """
    if type(network) is not RamPerception or type(network.core) not in CORES or any(map(_tampered, network.modules())):
        return False
    encoders = [type(layer) for layer in (*network.encode_pixels, *network.encode_location)]
    others = type(network.classify), type(network.combine), type(network.dropout)
    weights = dict(network.named_parameters())
    known = all(name in weights for name in (*ENCODER, *CORES[type(network.core)], *CLASSIFIER))
    plain = all(weight.dtype == torch.float32 for weight in weights.values())
    return known and plain and encoders == [nn.Flatten, nn.Linear, nn.Linear] and others == (nn.Linear, nn.Linear, nn.Dropout)


def _tampered(module: nn.Module) -> bool:
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(hooks) or bool(vars(module).keys() & {"forward", "look", "read"})


class WrittenOut:
    """`look` and `read` of a RamPerception without a graph; `connect` makes what was read a function of its weights again.

    `dtype` is that of the products: bf16, float32, or what a test compares with. A backward() that comes after the next episodes
    have begun raises ValueError: their weights and their tape have taken the place of those before.
    """

    def __init__(self, network: RamPerception, dtype: torch.dtype = torch.bfloat16) -> None:
        self.network, self.dtype = network, dtype
        self._lstm = isinstance(network.core, LSTMCell)
        # The type of an LSTM's gates and c, whose sums so keep their digits from look to look.
        self._wide = torch.promote_types(dtype, torch.float32)
        self._take()
        what, combine, core, classify = (self._parameters[k] for k in (0, 4, 6, 9))
        self._pixels, self._seen = what.shape[1], len(combine)
        widths = [2 * len(what), len(combine), len(core), len(classify)]
        inputs = [what.shape[1] + 2, 2 * len(what), len(combine) + network.features, network.features]
        self._weights = [torch.zeros(out, into, dtype=dtype) for out, into in zip(widths, inputs, strict=True)]
        self._biases = [torch.zeros(out, dtype=dtype) for out in widths]
        self._copies = self._apart(self._weights, self._biases)
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
        torch._foreach_copy_(self._copies, self._parameters)
        for bias in self._second:
            torch.add(self._parameters[8], bias, out=self._biases[2])
        # NaN among the weights is to be heard, though oneDNN's ReLU makes 0 of it.
        self._biases[3] += torch.stack([weight.sum() for weight in (*self._weights, *self._biases)]).sum() * 0
        self.tape, self._masks = [] if learning else None, []

    def look(self, state: State | None, glimpse: Tensor, location: Tensor) -> State:
        """The state after a glimpse [B, S, C, g, g] at a location [B, 2]."""
        (encode, combine, core, _), (encode_bias, combine_bias, core_bias, _) = self._weights, self._biases
        parts = torch.cat([glimpse.flatten(1), location], dim=1).to(self.dtype)
        both = affine(parts, encode, encode_bias, relu=True)
        seen = affine(both, combine, combine_bias, relu=True)
        joined, core = (seen, core[:, : self._seen]) if state is None else (torch.cat([seen, state[0]], dim=1), core)
        after: State
        cell: tuple[Tensor, Tensor | None, Tensor] | None = None
        if self._lstm:
            gates, c = affine(joined, core, core_bias).to(self._wide), None if state is None else state[1]
            h, later, squashed = squash_gates(gates, c, tanh)
            after, cell = (h.to(self.dtype), later), (gates, c, squashed)
        else:
            after = (affine(joined, core, core_bias, relu=True),)
        if self.tape is not None:
            self.tape.append(Looked(parts, both, joined, after[0], cell))
        return after

    def read(self, state: State) -> Tensor:
        """Class logits [B, K]. With dropout, ask once after each look."""
        h, rate = state[0], self.network.dropout.p
        if self.tape is not None and rate:
            self._masks.append(torch.empty_like(h).bernoulli_(1 - rate).div_(1 - rate))
            h = h * self._masks[-1]
        return affine(h, self._weights[3], self._biases[3])

    def __call__(self, method: str, *arguments: Any) -> Any:
        """The method of this name on these arguments, none of which has a graph."""
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
            """What a layer's bias and weight, of which the part that met these inputs, get from the gradient of its outputs."""
            add_product(weights[layer][:, : inputs.shape[1]], outputs.T, inputs)
            biases[layer].add_(outputs.sum(dim=0))

        def through_encoder() -> None:
            """Back through what comes before the core, for the looks that wait: there looks know nothing of each other."""
            into, both, parts = (torch.cat(rows) if len(rows) > 1 else rows[0] for rows in zip(*waiting, strict=True))
            add(1, into, both)
            add(0, through_relu(product(into, combine), both), parts)
            waiting.clear()

        waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        dh: Tensor | None = None  # what the looks that came after say of h
        dc: Tensor | None = None  # and of c
        for t in reversed(range(len(self.tape))):
            look, told = self.tape[t], of_logits[t]
            if told is not None:
                told = told.to(self.dtype)
                add(3, told, look.h * self._masks[t] if self._masks else look.h)
                said = product(told, classify)
                said = said.mul_(self._masks[t]) if self._masks else said
                dh = said if dh is None else said.add_(dh)
            if dh is None:
                continue
            if look.cell is not None:
                into, dc = through_gates(dh.to(self._wide), dc, *look.cell)
                into = into.to(self.dtype)
            else:
                into = through_relu(dh, look.h)
            add(2, into, look.joined)
            before = product(into, core if t else core[:, : self._seen])
            seen, dh = before[:, : self._seen], before[:, self._seen :]
            waiting.append((through_relu(seen, look.joined[:, : self._seen]), look.both, look.parts))
            if t == 0 or len(waiting) * len(seen) >= ENCODED_AT_ONCE:
                through_encoder()
        return [*self._apart(weights, biases), *(biases[2].clone() for _ in self._second)]


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
