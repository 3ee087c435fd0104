"""Baselines: identity at the beginning, exact shifts, gates of 1 and masks of 0 change nothing, gradients as they should be."""

import dataclasses
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hardattn import results, train_baseline
from hardattn.baselines import BASELINES, SUMMARIES, draw_reader, stn
from hardattn.baselines.convnet import ConvNet, ConvNetConfig, SmallConvNet, SmallConvNetConfig, Trunk
from hardattn.baselines.looked import overlap
from hardattn.baselines.residual_attention import Attention, ResidualAttention, ResidualAttentionConfig, combine
from hardattn.baselines.squeeze_excite import Gate, NoSqueeze, SqueezeExcite, SqueezeExciteConfig
from hardattn.envs import datasets
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.tasks import TASKS
from hardattn.train import Interrupted
from hardattn.train_baseline import BaselineTrainer


def images(count: int = 3, side: int = 28, channels: int = 1) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def model_of(name: str, side: int = 28, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    found = train_baseline.baseline_class(name)
    config = found.Config(**changes)
    config = config.fitted(TASKS["ram-mnist"]) if hasattr(config, "fitted") else config
    made: nn.Module = found((1, side, side), 10, config)
    return made.eval()


@pytest.mark.parametrize("side", [28, 60])
@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_answers_and_learns(name: str, side: int) -> None:
    made = model_of(name, side).train()
    one = made(images(4, side))
    assert one.logits.shape == (4, 10)
    one.logits.square().sum().backward()
    still = [key for key, weight in made.named_parameters() if weight.grad is None]
    assert not still
    assert name in SUMMARIES


def affine(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float32).view(1, 2, 3)


@pytest.mark.parametrize("side", [27, 28])
def test_the_identity_gives_the_image_back(side: int) -> None:
    shown = images(1, side)
    assert torch.allclose(stn.sample(shown, affine(1, 0, 0, 0, 1, 0), side), shown, atol=1e-5)


def test_whole_pixels_are_shifted_exactly_and_the_rest_is_background() -> None:
    shown = images(1, 11)
    moved = stn.sample(shown, affine(1, 0, 2 * 2 / 10, 0, 1, 0), 11, background=0.25)  # two pixels of eleven
    assert torch.allclose(moved[..., :9], shown[..., 2:], atol=1e-5)
    assert torch.allclose(moved[..., 9:], torch.tensor(0.25))


def test_half_a_turn_flips_both_ways() -> None:
    shown = images(1, 12)
    assert torch.allclose(stn.sample(shown, affine(-1, 0, 0, 0, -1, 0), 12), shown.flip(2, 3), atol=1e-5)


def test_boxes_of_transforms_on_paper() -> None:
    """Over 11 pixels: all of it; half of it around the middle; an eighth of a turn reaches sqrt(2) times as far."""
    assert stn.box_of(affine(1, 0, 0, 0, 1, 0), 11, 11).tolist() == [[0, 0, 11, 11]]
    assert stn.box_of(affine(0.5, 0, 0.2, 0, 0.5, -0.2), 11, 11).tolist() == [pytest.approx([3.5, 1.5, 9.5, 7.5])]
    s = math.sqrt(0.5)
    left, _, right, _ = stn.box_of(affine(s, -s, 0, s, s, 0), 11, 11)[0].tolist()
    assert (right - left - 1) == pytest.approx(10 * math.sqrt(2), rel=1e-4)


@pytest.mark.parametrize("transform", ["affine", "attention"])
@pytest.mark.parametrize("localiser", ["cnn", "fcn"])
def test_a_transformer_begins_as_the_identity(transform: str, localiser: str) -> None:
    made = model_of("stn", transform=transform, localiser=localiser, size=14)
    theta = stn.matrices(made.localise(images()))  # type: ignore[operator]
    assert theta.flatten(1).tolist() == [[1, 0, 0, 0, 1, 0]] * 3
    assert made(images()).boxes.tolist() == [[[0, 0, 28, 28]]] * 3


def test_logits_change_when_and_only_when_the_crop_does() -> None:
    """A public port fed its classifier the untransformed image (kevinzakka/spatial-transformer-network#3)."""
    made = model_of("stn", size=14)
    shown, small = images(1), torch.tensor([0.4, 0.0, 0.3, 0.0, 0.4, 0.3])
    before = made(shown).logits
    made.localise[-1].bias.data.copy_(small)  # type: ignore[index, union-attr, operator]
    assert not torch.allclose(made(shown).logits, before)
    left, top, _, _ = (int(edge) for edge in made(shown).boxes[0, 0])
    outside = shown.clone()
    outside[..., : top - 1, :] = 0.5
    outside[..., :, : left - 1] = 0.5
    made.localise = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 6))
    nn.init.zeros_(made.localise[1].weight)  # type: ignore[arg-type]
    made.localise[1].bias.data.copy_(small)  # type: ignore[union-attr, operator]
    assert torch.equal(made(shown).logits, made(outside).logits)


def test_an_affine_gradient_reaches_every_number_and_agrees_with_finite_differences() -> None:
    smooth = torch.nn.functional.avg_pool2d(images(1, 40).double(), 9, 1)
    theta = torch.tensor([[0.61, 0.11, 0.07, -0.13, 0.57, -0.05]], dtype=torch.float64, requires_grad=True)
    weight = torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def total(numbers: Tensor) -> Tensor:
        return (stn.sample(smooth, stn.matrices(numbers), 8) * weight).sum()

    (gradient,) = torch.autograd.grad(total(theta), theta)
    for k in range(6):
        step = torch.zeros_like(theta)
        step[0, k] = 1e-6
        slope = float(total(theta.detach() + step) - total(theta.detach() - step)) / 2e-6
        assert float(gradient[0, k]) == pytest.approx(slope, rel=1e-3, abs=1e-6) and slope != 0


def test_gaussian_filters_on_paper() -> None:
    """Three filters, two pixels apart around pixel 3, deviation 1: the middle one's weights fall as exp(-d^2 / 2)."""
    bank = draw_reader.filters(*(torch.tensor([v]) for v in (3.0, 2.0, 1.0)), 3, 7)
    assert bank.sum(dim=2).tolist() == [pytest.approx([1, 1, 1])]
    middle = bank[0, 1]
    assert (middle[4] / middle[3]).item() == pytest.approx(math.exp(-0.5)) and int(middle.argmax()) == 3
    assert bank.argmax(dim=2).tolist() == [[1, 3, 5]]


def test_narrow_filters_read_pixels() -> None:
    shown = images(1, 9)
    across, down = (draw_reader.filters(*(torch.tensor([v]) for v in (at, 1.0, 0.05)), 3, 9) for at in (5.0, 3.0))
    assert torch.allclose(draw_reader.read(shown, across, down), shown[:, :, 2:5, 4:7], atol=1e-5)


def test_a_grid_begins_over_the_whole_image() -> None:
    x, y, stride, deviation, intensity = draw_reader.grid(torch.zeros(1, 5), 12, 60, 60)
    assert [float(v) for v in (x, y, stride, intensity)] == pytest.approx([29.5, 29.5, 59 / 11, 1])
    assert float(deviation) == pytest.approx(59 / 22)
    assert model_of("draw-reader")(images()).boxes[:, 0].flatten().tolist() == pytest.approx(
        [-1.43, -1.43, 29.43, 29.43] * 3, abs=0.01
    )


def test_the_gaussian_grids_gradient_agrees_with_finite_differences_far_from_the_object() -> None:
    """What a bilinear crop lacks: a bright spot 20 pixels from the nearest filter still pulls."""
    shown = torch.zeros(1, 1, 60, 60, dtype=torch.float64)
    shown[..., 45:48, 45:48] = 1
    numbers = torch.tensor([[-0.3, -0.25, 0.1, -0.9, 0.05]], dtype=torch.float64, requires_grad=True)

    def total(values: Tensor) -> Tensor:
        x, y, stride, deviation, intensity = draw_reader.grid(values, 12, 60, 60)
        across, down = (draw_reader.filters(at, stride, deviation * 2, 12, 60) for at in (x, y))
        return (draw_reader.read(shown, across.double(), down.double()) * intensity[:, None, None, None]).sum()

    (gradient,) = torch.autograd.grad(total(numbers), numbers)
    for k in range(5):
        step = torch.zeros_like(numbers)
        step[0, k] = 1e-6
        slope = float(total(numbers.detach() + step) - total(numbers.detach() - step)) / 2e-6
        assert float(gradient[0, k]) == pytest.approx(slope, rel=1e-4, abs=1e-9)
    assert gradient[0, 0] > 0 and gradient[0, 1] > 0  # towards the spot


def test_gates_of_one_leave_the_network_alone() -> None:
    for kind in (SqueezeExcite, NoSqueeze):
        torch.manual_seed(0)
        gated = kind((1, 28, 28), 10, SqueezeExciteConfig()).eval()
        torch.manual_seed(0)
        alone = SqueezeExcite((1, 28, 28), 10, SqueezeExciteConfig(gates=False)).eval()
        alone.load_state_dict({key: value for key, value in gated.state_dict().items() if not key.startswith("gates")})
        with torch.no_grad():
            shut = gated(images()).logits
            for gate in gated.gates:
                gate.second.weight.zero_()  # type: ignore[union-attr, operator]
                gate.second.bias.fill_(40)  # type: ignore[union-attr, operator]
            assert torch.equal(gated(images()).logits, alone(images()).logits) and not torch.equal(shut, alone(images()).logits)


def test_a_gate_with_squeeze_is_global_and_one_without_is_not() -> None:
    torch.manual_seed(0)
    seen = torch.rand(1, 8, 6, 6)
    elsewhere = seen.clone()
    elsewhere[..., 5, 5] += 3
    for squeeze in (True, False):
        gate = Gate(8, 4, squeeze)
        gate.first.weight.data.abs_()
        assert torch.equal(gate(seen)[..., 0, 0], gate(elsewhere)[..., 0, 0]) is not squeeze


def test_squeezing_on_paper() -> None:
    """One map of mean 3, weights 1 and 2, bias 2: sigmoid(2 x 3 + 2)."""
    gate = Gate(1, 1, True)
    nn.init.constant_(gate.first.weight, 1)
    nn.init.constant_(gate.second.weight, 2)
    assert gate(torch.tensor([[[[1.0, 5.0]]]])).item() == pytest.approx(1 / (1 + math.exp(-8)))


def test_a_mask_of_nought_leaves_the_trunk_and_a_naive_one_silences_it() -> None:
    torch.manual_seed(0)
    module = Attention(4, "residual").eval()
    seen = torch.rand(2, 4, 8, 8)
    nn.init.constant_(module.mask.out[-1].bias, -200)  # type: ignore[union-attr, index, arg-type]
    nn.init.zeros_(module.mask.out[-1].weight)  # type: ignore[union-attr, index, arg-type]
    trunk = module.trunk(module.before(seen))
    assert torch.equal(module(seen)[0], module.after(trunk))
    module.learning = "naive"
    assert torch.equal(module(seen)[0], module.after(torch.zeros_like(trunk)))
    trunk, mask = torch.tensor([2.0, 4.0]), torch.tensor([0.5, 0.25])
    assert combine(trunk, mask, "residual").tolist() == [3, 5] and combine(trunk, mask, "naive").tolist() == [1, 1]


def test_a_network_without_masks_is_the_trunk_of_one_with_them() -> None:
    with_masks, without = (
        ResidualAttention((1, 28, 28), 10, ResidualAttentionConfig(kind, width=4)) for kind in ("residual", "none")
    )
    missing = set(with_masks.state_dict()) - set(without.state_dict())
    assert missing and all(".mask." in key for key in missing) and set(without.state_dict()) <= set(with_masks.state_dict())


def test_what_pixels_a_small_network_sees() -> None:
    """Six looks of 8 x 8 are 384 pixels: 19 x 19 = 361 are as many as a square may have."""
    config = SmallConvNetConfig().fitted(TASKS["ram-mnist"])
    assert config.side == 19
    made = SmallConvNet((1, 28, 28), 10, config).eval()
    assert made.processed_pixels == 361 and made(images()).logits.shape == (3, 10)
    assert SmallConvNetConfig().fitted(TASKS["ram-cluttered60"]).side == 58
    with pytest.raises(UsageError, match="wanted side=4"):
        SmallConvNet((1, 28, 28), 10, SmallConvNetConfig(side=2))


def test_an_image_that_is_not_square_is_read_through_as_many_pixels_as_are_said() -> None:
    made = SmallConvNet((3, 20, 64), 4, SmallConvNetConfig(side=24)).eval()
    read: list[torch.Size] = []
    made.net.register_forward_pre_hook(lambda net, given: read.append(given[0].shape))
    made(torch.rand(2, 3, 20, 64))
    assert read == [(2, 3, 20, 20)] and made.processed_pixels == 400


def test_data_that_a_baseline_cannot_read_are_refused(tmp_path: Path) -> None:
    small = Dataset("small", torch.zeros(40, 1, 6, 6, dtype=torch.uint8), torch.arange(40) % 10, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda *_: small)
        with pytest.raises(UsageError, match="--baseline stn: images of 6 x 6 pixels do not fit it"):
            BaselineTrainer(train_baseline.build("ram-mnist", "stn", sets=["batch_size=8"], device="cpu"), tmp_path, print)
        several = dataclasses.replace(small, labels=torch.zeros(40, 3, dtype=torch.int64))
        patch.setattr(datasets, "load", lambda *_: several)
        with pytest.raises(UsageError, match="--baseline cnn: the data set has 3 labels an image; wanted one"):
            BaselineTrainer(train_baseline.build("ram-mnist", "cnn", sets=["batch_size=8"], device="cpu"), tmp_path, print)


def test_the_papers_network() -> None:
    """28 - 8 = 20, pooled 10, less 6 is 4, pooled 2: 2 x 2 x 32 features."""
    assert Trunk((1, 28, 28), "paper").features == 128
    with pytest.raises(UsageError, match="22 x 22"):
        Trunk((1, 20, 20), "paper")


def test_flops_against_a_count_by_hand() -> None:
    """layout=paper on 28 x 28: 2 x (20 x 20 x 81 x 32 + 4 x 4 x 49 x 32 x 32 + 128 x 10)."""
    data = train_baseline.images_of(TASKS["ram-mnist"], "test")
    made = ConvNet((1, 28, 28), 10, ConvNetConfig("paper"))
    assert train_baseline.flops_per_image(made, data) == 2 * (400 * 81 * 32 + 16 * 49 * 32 * 32 + 1280)  # type: ignore[arg-type]


def test_overlap_on_paper() -> None:
    """Two squares of 4 that share 2 x 4: 8 / (16 + 16 - 8)."""
    one, other = torch.tensor([0.0, 0, 4, 4]), torch.tensor([2.0, 0, 6, 4])
    assert float(overlap(one, other)) == pytest.approx(8 / 24)
    assert float(overlap(one, one)) == 1 and float(overlap(one, other + 10)) == 0


def test_the_loss_weighs_looks_as_a_world_does() -> None:
    """Three looks, weight 0.5 for the first two: (c + 0.5 (a + b)) / 2."""
    looks, labels = torch.randn(4, 3, 10), torch.tensor([1, 2, 3, 4])
    each = [float(nn.functional.cross_entropy(looks[:, t], labels)) for t in range(3)]
    one = train_baseline.Looked(looks[:, -1], looks)
    assert float(train_baseline.loss_of(one, labels, 0.5)) == pytest.approx((each[2] + 0.5 * (each[0] + each[1])) / 2, rel=1e-5)
    assert float(train_baseline.loss_of(one._replace(by_look=None), labels, 0.5)) == pytest.approx(each[2], rel=1e-5)


def test_settings_are_checked() -> None:
    for name, changes in {
        "cnn": {"width": 0.0}, "stn": {"localiser_rate": 0.0}, "draw-reader": {"size": 1}, "se": {"reduction": 0},
        "residual-attention": {"modules": 0},
    }.items():  # fmt: skip
        with pytest.raises(UsageError, match="wanted"):
            dataclasses.replace(train_baseline.baseline_class(name).Config(), **changes)


def a_trainer(folder: Path) -> train_baseline.BaselineTrainer:
    setup = train_baseline.build("ram-mnist", "cnn", sets=["episodes=256", "batch_size=64"], device="cpu")
    return train_baseline.BaselineTrainer(setup, folder, lambda progress: os.kill(os.getpid(), signal.SIGINT))


def test_a_training_goes_on_only_with_the_same_images(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        a_trainer(tmp_path).run()
    state = results.read_state(tmp_path / results.CHECKPOINT)
    again = a_trainer(tmp_path)
    again.load_state_dict(state)
    assert again.update == 1
    with pytest.raises(UsageError, match=r"is of data_sha256 0000.*choose another --out"):
        again.load_state_dict(state | {"data_sha256": "0" * 64})


def test_stopping_does_not_write_broken_weights_over_good_ones(tmp_path: Path) -> None:
    trainer = a_trainer(tmp_path)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(HardattnError, match="the loss became nan at update 1"):
        trainer.run()
    assert not (tmp_path / results.CHECKPOINT).exists()
