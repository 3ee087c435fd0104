"""CNNs with gains: gains of 1 change nothing, folding and splitting keep the function, what is shared stays shared."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hardattn.envs import cnn, task_data
from hardattn.envs.cnn import Cnn, Where
from hardattn.envs.errors import UsageError


def network(kind: str = "small") -> Cnn:
    torch.manual_seed(0)
    made = cnn.small(3, 10, (4, 6, 6)) if kind == "small" else cnn.maxout(3, 10, (32, 32), (4, 6, 6), 8)
    cnn.whiten(made, pictures(50))
    return made.eval()


def pictures(count: int = 6) -> Tensor:
    return torch.randint(256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def gains(net: Cnn, rows: int, where: Where) -> list[Tensor]:
    random = torch.Generator().manual_seed(2)
    return [torch.rand(rows, maps, generator=random) * 2 for maps in net.gain_counts(where)]


@pytest.mark.parametrize(("kind", "where"), [("small", "after"), ("small", "before"), ("maxout", "after"), ("maxout", "before")])
def test_gains_of_one_give_the_network_as_it_is_to_the_bit(kind: str, where: Where) -> None:
    net, images = network(kind), pictures()
    ones = [torch.ones(6, maps) for maps in net.gain_counts(where)]
    for first in range(len(net.stages)):
        assert torch.equal(net.finish(net.begin(images, first), ones[first:], where, first).logits, net(images))
    assert not torch.allclose(net.finish(net.begin(images), gains(net, 6, where), where).logits, net(images))


def test_through_a_relu_before_and_after_are_the_same_and_through_a_maxout_not() -> None:
    images = pictures()
    for kind, same in (("small", True), ("maxout", False)):
        net = network(kind)
        after = gains(net, 6, "after")
        before = [gain.repeat_interleave(stage.pieces, dim=1) for gain, stage in zip(after, net.stages, strict=True)]
        scaled = [gain.clone() for gain in before]
        for gain in scaled:
            gain[:, ::2] *= 1.5  # one piece of two alone, where there are two
        reference = net.finish(net.begin(images), after, "after").logits
        assert torch.allclose(net.finish(net.begin(images), before, "before").logits, reference, atol=1e-5)
        if not same:
            other = net.finish(net.begin(images), scaled, "before").logits
            assert not torch.allclose(other, reference, atol=1e-3)


def test_a_maxout_network_reads_images_that_are_not_square() -> None:
    net = cnn.maxout(1, 10, (24, 40), (4, 6, 6), 8)
    assert net(torch.zeros(2, 1, 24, 40)).shape == (2, 10)


def test_images_too_small_for_a_network_are_refused() -> None:
    with pytest.raises(UsageError, match="cnn=small: images of 8 x 8 pixels do not fit it"):
        task_data.fits(cnn.small(1), (1, 8, 8), "cnn=small")
    net = cnn.small(1)
    task_data.fits(net, (1, 28, 28), "cnn=small")
    assert net.training


@pytest.mark.parametrize("kind", ["small", "maxout"])
@pytest.mark.parametrize("first", [0, 1])
def test_the_convolution_taken_apart_gives_the_same(kind: str, first: int) -> None:
    net, images = network(kind), pictures(3)
    listen = gains(net, 12, "after")[first:]
    linear = net.begin(images, first)
    whole = net.finish(linear.repeat_interleave(4, dim=0), listen, "after", first)
    split = net.finish_split(net.split(linear, first), listen, "after", first)
    for one, other in zip(whole, split, strict=True):
        assert (one - other).abs().max() < 1e-5


def test_a_folded_network_computes_the_same() -> None:
    net = network().train()
    optimizer = torch.optim.SGD([weight for weight in net.parameters() if weight.requires_grad], lr=0.5)
    for _ in range(5):  # statistics that are not 0 and 1, and whatever else learns
        optimizer.zero_grad()
        F.cross_entropy(net(pictures(20)), torch.arange(20) % 10).backward()
        optimizer.step()
    before = net.eval()(pictures())
    net.fold()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
    assert (net(pictures()) - before).abs().max() < 1e-4


def test_small_begins_with_convolutions_that_hand_on_what_they_see_and_narrow_does_not() -> None:
    seen = torch.randn(2, 24, 8, 8)
    for make, same in ((cnn.small, True), (cnn.narrow, False)):
        conv = make()._stages(0)[0].conv
        assert conv.bias is not None
        told = (conv(seen) - conv.bias[:, None, None])[:, :24]
        assert torch.allclose(told, seen, atol=1e-5) == same


def test_the_stem_whitens_and_does_not_learn() -> None:
    net = network()
    conv = net.stem[0]  # type: ignore[index]
    seen = conv(net.prepare(pictures(200)))[:, :12].movedim(1, 0).flatten(1)
    assert torch.allclose(torch.cov(seen), torch.eye(12), atol=0.1)
    assert not conv.weight.requires_grad


def test_observations_are_standardised_over_the_images_it_got_used_to() -> None:
    net = network("maxout")
    net.get_used_to(pictures(300))
    seen = net.observe(net.finish(net.begin(pictures(300)))).detach()
    alive = net.usual_deviation > 1e-3
    assert seen.shape[1] == 16 + 8 + 10 and seen.mean(dim=0).abs().max() < 1e-2
    assert seen.std(dim=0)[alive].tolist() == pytest.approx([1.0] * int(alive.sum()), abs=0.05)
    assert net.observe(net.finish(net.begin(pictures(), 1), None, "after", 1), 1).shape[1] == 12 + 8 + 10


def test_maxout_has_the_papers_shape_at_its_width() -> None:
    net = cnn.maxout(3, 10, (32, 32), (96, 192, 192), 500)
    assert net.last.in_features == 500 and net.head.layer.in_features == 4800 and net.gain_counts("before") == [192, 384, 384]  # type: ignore[union-attr]
