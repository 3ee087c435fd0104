"""A shuffled pass over the examples of a data set, again and again, that can be stopped and continued to the bit."""

import torch
from torch import Tensor


class ShuffledPass:
    """Indices 0..count-1 in random order; an incomplete last batch is left out, and a new pass begins."""

    def __init__(self, count: int, seed: int, device: torch.device) -> None:
        self.count, self.device = count, device
        self.generator = torch.Generator(device).manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64, device=device)
        self._cursor = 0

    def take(self, batch: int) -> Tensor:
        """The next `batch` indices [batch] int64."""
        if self._cursor + batch > len(self._order):
            self._order = torch.randperm(self.count, generator=self.generator, device=self.device)
            self._cursor = 0
        self._cursor += batch
        return self._order[self._cursor - batch : self._cursor]

    def reseed(self, seed: int) -> None:
        """Start the pass and the random stream afresh."""
        self.generator.manual_seed(seed)
        self._order, self._cursor = self._order[:0], 0

    def state_dict(self) -> dict[str, Tensor]:
        """The generator, the order and how far the pass has come."""
        return {"generator": self.generator.get_state(), "order": self._order, "cursor": torch.tensor(self._cursor)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()`; other keys are passed over."""
        self.generator.set_state(state["generator"].cpu())
        self._order = state["order"].to(self.device)
        self._cursor = int(state["cursor"])
