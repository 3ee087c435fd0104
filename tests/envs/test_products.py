"""Products of layers, on paper and by each library."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hardattn.envs.products import add_product, affine, by_onednn, fused, layer, product, tanh, through_relu

DTYPES = [torch.float32, torch.bfloat16, torch.float64]


@pytest.fixture(params=[False, True], ids=["torch", "onednn"])
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether oneDNN's one call is taken wherever it can be, or nowhere."""
    wanted = bool(request.param)
    if wanted and not fused():
        pytest.skip("this torch has no layer in one call")
    for name in ("fused", "quick_in_float32"):
        monkeypatch.setattr(f"hardattn.envs.products.{name}", lambda: wanted)
    return wanted


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layer_on_paper(dtype: torch.dtype, relu: bool, onednn: bool) -> None:
    inputs, weight, bias = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [-5.0, 1.0]]), torch.tensor([0.5, 1.0])
    assert by_onednn(inputs.to(dtype)) is (onednn and dtype != torch.float64)
    got = affine(inputs.to(dtype), weight.to(dtype), bias.to(dtype), relu=relu)
    assert got.dtype == dtype and got.tolist() == [[11.5, 0.0 if relu else -2.0]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_on_paper(dtype: torch.dtype, onednn: bool) -> None:
    left, right = torch.tensor([[1.0, 2.0], [0.0, -1.0]]).to(dtype), torch.tensor([[3.0, 4.0], [5.0, 6.0]]).to(dtype)
    assert product(left, right).tolist() == [[13.0, 16.0], [-5.0, -6.0]]
    assert product(left.T, right).tolist() == [[3.0, 4.0], [1.0, 2.0]]
    total = torch.ones(2, 3, dtype=dtype)
    add_product(total[:, :2], left, right)
    assert total.tolist() == [[14.0, 17.0, 1.0], [-4.0, -5.0, 1.0]]
    whole = torch.ones(2, 2, dtype=dtype)
    add_product(whole, left, right)
    assert whole.tolist() == [[14.0, 17.0], [-4.0, -5.0]]


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_parts_of_matrices_are_multiplied_as_whole_ones(dtype: torch.dtype, onednn: bool) -> None:
    wide, weights = numbers(40, 64).to(dtype), numbers(30, 64, seed=1).to(dtype)
    inputs, weight = wide[:, 16:48], weights[:, :32]
    bias = torch.zeros(30, dtype=dtype)
    wanted = affine(inputs.contiguous(), weight.contiguous(), bias)
    assert torch.equal(affine(inputs, weight, bias), wanted)
    torch.testing.assert_close(product(inputs, weight.T), wanted, atol=0.05, rtol=0.02)


def test_the_libraries_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    if not fused():
        pytest.skip("this torch has no layer in one call to compare with")
    inputs, weight, bias = numbers(40, 20), numbers(30, 20, seed=1), numbers(30, seed=2)
    for dtype, apart in ((torch.bfloat16, 0.05), (torch.float32, 1e-5)):
        parts = inputs.to(dtype), weight.to(dtype), bias.to(dtype)
        outputs = []
        for taken in (False, True):
            for name in ("fused", "quick_in_float32"):
                monkeypatch.setattr(f"hardattn.envs.products.{name}", lambda taken=taken: taken)
            outputs.append(affine(*parts, relu=True))
        torch.testing.assert_close(*outputs, atol=apart, rtol=apart)


@pytest.mark.parametrize("dtype", DTYPES)
def test_through_a_relu_goes_what_was_above_zero(dtype: torch.dtype) -> None:
    outputs = torch.tensor([[0.0, -0.0, 2.0, 1e-30, float("inf")]]).to(dtype)
    assert through_relu(torch.tensor([[1.0, -2.0, -3.0, 4.0, 5.0]]).to(dtype), outputs).tolist() == [[0.0, 0.0, -3.0, 4.0, 5.0]]
    wide = torch.tensor([[1.0, 9.0, -2.0, 9.0, -3.0, 9.0, 4.0, 9.0, 5.0, 9.0]]).to(dtype)
    assert through_relu(wide[:, ::2], outputs).tolist() == [[0.0, 0.0, -3.0, 4.0, 5.0]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_is_torchs_but_for_the_last_digits(dtype: torch.dtype, onednn: bool) -> None:
    inputs = torch.tensor([-200.0, -1.0, -1e-4, 0.0, 0.5, 3.0, float("inf")]).to(dtype)
    wanted = inputs.tanh()
    out = torch.empty_like(inputs)
    assert tanh(inputs, out=out) is out
    torch.testing.assert_close(out, wanted, atol=2e-7, rtol=0)
    torch.testing.assert_close(tanh(inputs, out=inputs), wanted, atol=2e-7, rtol=0)  # in place


def leaves(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Inputs, weight and bias of a layer."""
    return [part.to(dtype).requires_grad_() for part in (numbers(9, 6), numbers(5, 6, seed=1), numbers(5, seed=2))]


def torchs_layer(inputs: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    outputs = F.linear(inputs, weight, bias)
    return outputs.relu() if relu else outputs


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layers_gradient_is_autograds(dtype: torch.dtype, relu: bool, onednn: bool) -> None:
    apart = 0.1 if dtype == torch.bfloat16 else 1e-5
    for power in (1, 2):  # of a sum the gradient is one number, expanded
        ours, theirs = leaves(dtype), leaves(dtype)
        layer(*ours, relu=relu).pow(power).sum().backward()
        torchs_layer(*theirs, relu=relu).pow(power).sum().backward()
        for mine, autograds in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine.grad, autograds.grad, atol=apart, rtol=apart)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_a_layer_is_known_to_put_out_has_its_gradient(dtype: torch.dtype, relu: bool, onednn: bool) -> None:
    plain, told = leaves(dtype), leaves(dtype)
    outputs = layer(*plain, relu=relu)
    again = layer(*told, relu=relu, known=outputs.detach())
    assert torch.equal(again, outputs)
    for made in (outputs, again):
        made.square().sum().backward()
    for mine, other in zip(plain, told, strict=True):
        assert mine.grad is not None and torch.equal(mine.grad, other.grad)
    assert bool((layer(*told, known=torch.full_like(outputs, 7)) == 7).all())  # and is not computed


def test_a_layers_gradient_has_a_gradient(onednn: bool) -> None:
    second = []
    for made in (layer, torchs_layer):
        parts = leaves()
        first = torch.autograd.grad(made(*parts, relu=True).square().sum(), parts, create_graph=True)
        second.append(torch.autograd.grad(torch.stack([part.square().sum() for part in first]).sum(), parts))
    torch.testing.assert_close(*second)


def test_torchs_own_gradient_of_functions_knows_a_layer(onednn: bool) -> None:
    inputs, weight, bias = (part.detach() for part in leaves())

    def slope(made: Callable[..., Tensor]) -> Tensor:
        return torch.func.grad(lambda w: made(inputs, w, bias, relu=True).square().sum())(weight)

    torch.testing.assert_close(slope(layer), slope(torchs_layer))
