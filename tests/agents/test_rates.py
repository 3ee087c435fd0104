"""The step size of an optimiser."""

import pytest
import torch

from hardattn.agents.rates import set_rate

GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_the_next_step_has_the_rate_that_was_set(device: str) -> None:
    """Adam's first step is as long as its rate, whatever the gradient."""
    for rate in (0.5, 0.125):
        weight = torch.zeros(1, device=device, requires_grad=True)
        optimizer = torch.optim.Adam([weight], lr=7.0, fused=True)
        weight.grad = torch.full_like(weight, 3.0)
        set_rate(optimizer, rate)
        optimizer.step()
        assert weight.detach().item() == pytest.approx(-rate)
