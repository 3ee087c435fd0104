"""A shuffled pass over the examples of a data set, again and again, that can be stopped and continued to the bit."""

import torch
from torch import Tensor

from hardattn.envs.errors import HardattnError, UsageError


class ShuffledPass:
    """Indices 0..count-1 in random order; an incomplete last batch is left out, and a new pass begins.

    Each of a batch's examples fills `repeats` of its rows. Raises UsageError for a batch that is not a multiple of that or that
    wants more examples than there are; `what` they are is for the message.
    """

    def __init__(self, count: int, batch_size: int, repeats: int, seed: int, device: torch.device, what: str = "images") -> None:
        if repeats < 1 or batch_size < 1 or batch_size % repeats:
            raise UsageError(f"batch_size={batch_size} with repeats={repeats}: wanted a positive multiple of repeats")
        if batch_size // repeats > count:
            raise UsageError(f"batch_size={batch_size}: the data set has {count} {what}; wanted no more")
        self.count, self.examples, self.device = count, batch_size // repeats, device
        self.generator = torch.Generator(device).manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64, device=device)
        self._cursor = 0
        self._dealt: Tensor | None = None
        self._waiting = False

    def deal(self) -> None:
        """Lay the next batch out; the next `take()` gives it, always in the same memory, where a replayed update reads it."""
        batch = self._next()
        if self._dealt is None:
            self._dealt = batch.clone()
        else:
            self._dealt.copy_(batch)
        self._waiting = True

    def take(self) -> Tensor:
        """The indices of the next batch's examples, [batch_size / repeats] int64.

        Raises HardattnError where batches are dealt and this one was taken before.
        """
        if self._dealt is None:
            return self._next()
        if not self._waiting:
            raise HardattnError("an update that is recorded plays one batch; add --set recorded=off")
        self._waiting = False
        return self._dealt

    def _next(self) -> Tensor:
        if self._cursor + self.examples > len(self._order):
            self._order = torch.randperm(self.count, generator=self.generator, device=self.device)
            self._cursor = 0
        self._cursor += self.examples
        return self._order[self._cursor - self.examples : self._cursor]

    def reseed(self, seed: int) -> None:
        """Start the pass and the random stream afresh."""
        self.generator.manual_seed(seed)
        self._order, self._cursor, self._dealt = self._order[:0], 0, None

    def state_dict(self) -> dict[str, Tensor]:
        """The generator, the order and how far the pass has come."""
        return {"generator": self.generator.get_state(), "order": self._order, "cursor": torch.tensor(self._cursor)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()`; other keys are passed over."""
        restore(self.generator, state["generator"])
        self._order = state["order"].to(self.device)
        self._cursor, self._dealt = int(state["cursor"]), None


def restore(generator: torch.Generator, state: Tensor) -> None:
    """Set a generator's state; that of a generator on another kind of device means nothing here, and the seed stands."""
    if state.numel() == generator.get_state().numel():
        generator.set_state(state.cpu())
