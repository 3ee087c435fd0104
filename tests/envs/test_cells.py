import pytest
import torch
from torch import Tensor, nn

from hardattn.envs.cells import LSTMCell, ReluCell, _Lstm

ROWS, INPUTS, WIDTH = 12, 20, 17


def pair() -> tuple[LSTMCell, nn.LSTMCell]:
    torch.manual_seed(0)
    ours, theirs = LSTMCell(INPUTS, WIDTH), nn.LSTMCell(INPUTS, WIDTH)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def unrolled(cell: nn.LSTMCell, seen: Tensor, from_zeros: bool) -> list[Tensor]:
    """Three steps, a loss that reads every h and the last c, and all gradients."""
    seen = seen.clone().requires_grad_()
    state = (torch.zeros(ROWS, WIDTH), torch.zeros(ROWS, WIDTH)) if from_zeros else None
    loss = torch.zeros(())
    for step in seen.unbind(dim=0):
        state = cell(step, state)
        loss = loss + state[0].square().sum()
    (loss + state[1].sum()).backward()
    assert seen.grad is not None
    return [*state, seen.grad, *(weight.grad for weight in cell.parameters() if weight.grad is not None)]


def test_our_lstm_and_its_gradient_are_torchs_to_the_bit() -> None:
    seen = torch.randn(3, ROWS, INPUTS, generator=torch.Generator().manual_seed(1))
    ours, theirs = pair()
    got, wanted = unrolled(ours, seen, from_zeros=False), unrolled(theirs, seen, from_zeros=True)
    assert len(got) == 2 + 1 + 4
    for mine, torchs in zip(got, wanted, strict=True):
        assert torch.equal(mine, torchs)


def test_our_lstm_continues_a_state_as_torchs_does() -> None:
    random = torch.Generator().manual_seed(2)
    seen, h, c = (torch.randn(ROWS, width, generator=random) for width in (INPUTS, WIDTH, WIDTH))
    ours, theirs = pair()
    for mine, torchs in zip(ours(seen, (h, c)), theirs(seen, (h, c)), strict=True):
        assert torch.equal(mine, torchs)


@pytest.mark.parametrize("first", [True, False])
def test_the_written_gradient_equals_finite_differences(first: bool) -> None:
    torch.manual_seed(3)
    cell = LSTMCell(3, 2).double()
    seen, h, c = (torch.randn(4, width, dtype=torch.float64, requires_grad=True) for width in (3, 2, 2))
    weights = tuple(cell.parameters())

    def step(*given: Tensor) -> tuple[Tensor, Tensor]:
        after: tuple[Tensor, Tensor] = cell(seen, None if first else (h, c))
        return after

    assert torch.autograd.gradcheck(step, (seen, *weights) if first else (seen, h, c, *weights))


def test_a_frozen_cell_passes_the_gradient_through_and_takes_none() -> None:
    seen = torch.randn(3, ROWS, INPUTS, generator=torch.Generator().manual_seed(4))
    ours, theirs = pair()
    ours.requires_grad_(False)
    got, wanted = unrolled(ours, seen, from_zeros=False), unrolled(theirs, seen, from_zeros=True)
    assert len(got) == 2 + 1 and torch.equal(got[2], wanted[2])


def test_half_precision_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Lstm, "apply", None)
    cell = LSTMCell(4, 4).bfloat16()
    h, c = cell(torch.randn(2, 4, dtype=torch.bfloat16))
    assert h.dtype == c.dtype == torch.bfloat16


def test_under_autocast_the_state_keeps_its_digits() -> None:
    ours, theirs = pair()
    seen, zeros = torch.randn(ROWS, INPUTS), torch.zeros(ROWS, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        got, wanted = ours(seen.bfloat16()), theirs(seen.bfloat16(), (zeros, zeros))
    for mine, torchs in zip(got, wanted, strict=True):
        assert mine.dtype == torch.float32 and torch.equal(mine, torchs)


def test_relu_core_on_paper() -> None:
    cell = ReluCell(1, 1)
    with torch.no_grad():
        cell.input.weight.fill_(2.0)
        cell.input.bias.fill_(-1.0)
    assert cell.recurrent.weight.item() == 1  # what it begins with: earlier looks are kept as they are
    first = cell(torch.tensor([[3.0]]))
    assert first[0].item() == 2 * 3 - 1
    assert cell(torch.tensor([[-1.0]]), first)[0].item() == 5 - 2 - 1
    assert cell(torch.tensor([[-5.0]]), first)[0].item() == 0
