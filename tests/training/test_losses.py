import math

import pytest
import torch

from funduscope.training import losses


def logit(*probabilities):
    return torch.tensor([math.log(p / (1 - p)) for p in probabilities], dtype=torch.float64)


def as_map(values):
    """(N,) values as maps (N, 2, 2) that hold each value everywhere."""
    return values[:, None, None].expand(-1, 2, 2)


@pytest.mark.parametrize(
    ("p", "y", "expected"),
    [(0.9, 1, 0.0010536052), (0.3, 1, 0.5899466741), (0.2, 0, 0.0089257421), (0.8, 0, 1.0300402640)],
)
def test_focal_reference_vectors(p, y, expected):
    assert losses.focal(logit(p), torch.tensor([y])).item() == pytest.approx(expected, rel=1e-5)


def test_focal_with_gamma_0_is_cross_entropy():
    found = losses.focal(logit(0.3, 0.3), torch.tensor([1, 0]), gamma=0.0)
    assert found.tolist() == pytest.approx([-math.log(0.3), -math.log(0.7)])


@pytest.mark.parametrize(
    ("p", "y", "expected"),
    [(0.01, 0, 0.010050336), (0.5, 1, 0.693147181), (0.5, 0, 0.693147181), (0.9, 0, 2.302585093)],
)
def test_bce_reference_vectors(p, y, expected):
    found = losses.bce_map(as_map(logit(p)), as_map(torch.tensor([y])))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_map_losses_are_means_over_pixels_one_value_a_picture():
    logits = torch.zeros(2, 2, 2)
    target = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[0.5, 0.5], [1.0, 0.0]]])
    assert losses.l1_map(logits, target).tolist() == pytest.approx([0.5, 0.25])
    assert losses.bce_map(logits, target).tolist() == pytest.approx([math.log(2)] * 2)


def test_l1_is_taken_from_the_sigmoid():
    found = losses.l1_map(as_map(logit(0.9, 0.2)), as_map(torch.tensor([0.4, 0.25])))
    assert found.tolist() == pytest.approx([0.5, 0.05], rel=1e-5)


def test_only_labelled_pictures_count():
    values = torch.tensor([1.0, 100.0, 3.0], requires_grad=True)
    mean = losses.labelled_mean(values, torch.tensor([True, False, True]))
    mean.backward()
    assert mean.item() == 2.0
    assert values.grad.tolist() == [0.5, 0.0, 0.5]


@pytest.mark.parametrize("loss", [losses.focal, losses.bce_map, losses.l1_map])
@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize("extreme", [80.0, -80.0])
def test_extreme_logits_give_finite_losses_and_gradients(loss, target, extreme):
    shape = (1,) if loss is losses.focal else (1, 2, 2)
    logits = torch.full(shape, extreme, requires_grad=True)
    value = loss(logits, torch.full(shape, target)).sum()
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", [losses.focal, losses.bce_map])
def test_the_worst_misses_keep_a_gradient(loss):
    logits = torch.full((1,) if loss is losses.focal else (1, 1, 1), -80.0, requires_grad=True)
    loss(logits, torch.ones_like(logits)).sum().backward()
    assert logits.grad.item() == pytest.approx(-1.0)


@pytest.mark.parametrize("loss", [losses.focal, losses.bce_map, losses.l1_map])
def test_losses_are_fp32_under_autocast(loss):
    logits = torch.linspace(-4, 4, 4).reshape((4,) if loss is losses.focal else (1, 2, 2))
    target = (logits > 1).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(logits.bfloat16(), target)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(logits.bfloat16().float(), target))


def test_each_task_has_its_loss():
    assert losses.of_tasks("l1") == {
        "glaucoma": losses.focal,
        "disc": losses.bce_map,
        "cup": losses.bce_map,
        "fovea": losses.l1_map,
        "ratio": losses.ratio,
    }
    assert losses.of_tasks("bce")["fovea"] is losses.bce_map


EXP_UWBCE = [
    (0.01, 99.0, 0.010050336),
    (0.1, 9.0, 0.105360516),
    (0.5, 1.0, 0.693147181),
    (0.9, 0.111111111, 2.302585093),
]


@pytest.mark.parametrize(("p", "sick", "healthy"), EXP_UWBCE)
def test_exp_uwbce_reference_vectors(p, sick, healthy):
    found = losses.exp_uwbce(logit(p, p), torch.tensor([1, 0]), 1.0, 1.0, linear_from=10.0)
    assert found.tolist() == pytest.approx([sick, healthy], rel=1e-7)


def test_exp_uwbce_of_a_batch_and_its_weights():
    logits, y = logit(0.9, 0.2, 0.4, 0.7).reshape(2, 2), torch.tensor([[1, 0], [1, 1]])
    assert losses.exp_uwbce(logits, y, 1.0, 1.0, 10.0).sum().item() == pytest.approx(2.262826091, rel=1e-7)
    weighted = losses.exp_uwbce(logits, y, 3.0, 5.0, 10.0) / losses.exp_uwbce(logits, y, 1.0, 1.0, 10.0)
    assert weighted.flatten().tolist() == pytest.approx([3, 5, 3, 3])


def test_exp_uwbce_goes_on_linearly_and_keeps_the_gradient_of_the_worst_misses():
    z = torch.tensor([-9.999999, -10.0, -10.000001, -60.0, -1e4, 1e4], dtype=torch.float64, requires_grad=True)
    values = losses.exp_uwbce(z, torch.ones(6), 1.0, 1.0, linear_from=10.0)
    values.sum().backward()
    e = math.exp(10)
    assert values[:3].tolist() == pytest.approx([e] * 3, rel=2e-6)
    assert values[3:5].tolist() == pytest.approx([51 * e, 9991 * e])
    assert z.grad[:5].tolist() == pytest.approx([-e] * 5, rel=2e-6)
    assert values[5] == 0


def test_exp_uwbce_has_the_right_gradient_everywhere():
    z = torch.tensor([-30.0, -8.0, -2.0, -0.5, 0.5, 2.0, 8.0, 30.0] * 2, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([1.0] * 8 + [0.0] * 8)
    assert torch.autograd.gradcheck(lambda z: losses.exp_uwbce(z, y, 1.5, 0.7, linear_from=5.0), (z,))
    assert torch.autograd.gradcheck(lambda z: losses.uwbce(z, y, 1.5, 0.7), (z,))


def test_uneven_losses_are_in_fp32_whatever_the_network_ran_in():
    z, y = torch.tensor([-8.0, 8.0], dtype=torch.bfloat16), torch.tensor([1, 0])
    for values in (losses.exp_uwbce(z, y, 1.0, 1.0, 10.0), losses.uwbce(z, y, 1.0, 1.0)):
        assert values.dtype == torch.float32
    exact = losses.exp_uwbce(z.double(), y, 1.0, 1.0, 10.0)
    assert losses.exp_uwbce(z, y, 1.0, 1.0, 10.0).tolist() == pytest.approx(exact.tolist(), rel=1e-6)


def test_uwbce_at_equal_weights_is_cross_entropy():
    z, y = torch.linspace(-40, 40, 33, dtype=torch.float64), (torch.arange(33) % 2).double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none")
    assert losses.uwbce(z, y, 1.0, 1.0).tolist() == pytest.approx(expected.tolist())
    assert losses.uwbce(z, torch.ones(33), 3.0, 1.0).tolist() == pytest.approx(
        (3 * losses.uwbce(z, torch.ones(33), 1.0, 1.0)).tolist()
    )


def exp_uwbce(logits, target, linear_from=6.0):
    return losses.exp_uwbce(logits, target, 1.5, 0.7, linear_from)


def uwbce(logits, target):
    return losses.uwbce(logits, target, 1.5, 0.7)


BY_ELEMENT = pytest.mark.parametrize("loss", [exp_uwbce, uwbce, losses.focal])


@pytest.mark.parametrize(
    ("loss", "p", "y", "expected"),
    [
        *((lambda z, y: losses.exp_uwbce(z, y, 1.0, 1.0, 10.0), p, 1, sick) for p, sick, _ in EXP_UWBCE),
        *((lambda z, y: losses.exp_uwbce(z, y, 1.0, 1.0, 10.0), p, 0, healthy) for p, _, healthy in EXP_UWBCE),
        *((lambda z, y: losses.uwbce(z, y, 3.0, 1.0), p, 0, healthy) for p, _, healthy in EXP_UWBCE),
        (lambda z, y: losses.uwbce(z, y, 3.0, 1.0), 0.01, 1, 3 * 4.605170186),
        (losses.focal, 0.9, 1, 0.0010536052),
        (losses.focal, 0.3, 1, 0.5899466741),
        (losses.focal, 0.2, 0, 0.0089257421),
        (losses.focal, 0.8, 0, 1.0300402640),
    ],
)
def test_double_precision_is_kept_to_the_last_digit_of_the_references(loss, p, y, expected):
    found = loss(logit(p), torch.tensor([y]))
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected, abs=6e-10)


@BY_ELEMENT
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_single_precision_agrees_with_double_for_any_logit(loss, target):
    single = torch.linspace(-200, 200, 4001).requires_grad_()
    double = single.detach().double().requires_grad_()
    for z in (single, double):
        loss(z, torch.full_like(z, target)).sum().backward()
    y = torch.full((4001,), target)
    torch.testing.assert_close(loss(single, y).double(), loss(double, y), rtol=2e-5, atol=1e-36)
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=2e-5, atol=1e-36)


@BY_ELEMENT
def test_gradients_are_those_of_the_values(loss):
    z = torch.tensor([-30.0, -9.0, -6.5, -5.5, -2.0, -0.5, 0.5, 2.0, 8.0, 19.0] * 2, dtype=torch.float64)
    y = torch.tensor([1.0] * 10 + [0.0] * 10)
    assert torch.autograd.gradcheck(lambda z: loss(z, y), (z.requires_grad_(),))


@pytest.mark.parametrize(
    ("loss", "slope"),
    [(exp_uwbce, -1.5 * math.exp(6)), (uwbce, -1.5), (losses.focal, -1.0)],
    ids=["exp", "uwbce", "focal"],
)
@pytest.mark.parametrize("logit_of_a_miss", [-30.0, -200.0, -1e5, -1e30])
def test_a_missed_positive_keeps_its_gradient_however_negative(loss, slope, logit_of_a_miss):
    z = torch.tensor([logit_of_a_miss], requires_grad=True)
    value = loss(z, torch.ones(1))
    value.backward()
    assert math.isfinite(value.item())
    assert z.grad.item() == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("linear_from", [0.5, 3.0, 6.0, 20.0])
def test_value_and_gradient_go_on_without_a_step_where_the_line_begins(linear_from):
    z = (-linear_from + torch.tensor([1e-9, 0.0, -1e-9], dtype=torch.float64)).requires_grad_()
    values = exp_uwbce(z, torch.ones(3), linear_from)
    values.sum().backward()
    height = 1.5 * math.exp(linear_from)
    assert values.tolist() == pytest.approx([height] * 3, rel=3e-9)
    assert z.grad.tolist() == pytest.approx([-height] * 3, rel=3e-9)
    beyond = exp_uwbce(torch.tensor([-linear_from - 2.0], dtype=torch.float64), torch.ones(1), linear_from)
    assert beyond.item() == pytest.approx(3 * height)  # the exponential would be e^2 times as high


@BY_ELEMENT
def test_losses_by_element_are_fp32_under_autocast(loss):
    logits = torch.linspace(-12, 12, 41)
    target = (torch.arange(41) % 2).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(logits.bfloat16(), target)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(logits.bfloat16().float(), target))


def test_the_ratio_is_that_of_the_tallest_columns_and_teaches_the_cup_alone():
    logits = torch.full((2, 2, 20, 20), -30.0)
    logits[:, 0, 2:18, 3:17] = 30.0  # discs 16 high
    logits[:, 1, 6:14, 6:14] = 30.0  # cups 8 high
    logits[1, 1, 4:16, 9:11] = 30.0  # but for two columns of the second, of 12
    logits.requires_grad_()
    found = losses.ratio(logits, torch.tensor([0.5, 0.5]))
    assert found.tolist() == pytest.approx([0.0, 0.25], abs=1e-5)
    soft = torch.zeros(1, 2, 8, 8, requires_grad=True)
    losses.ratio(soft, torch.tensor([0.5])).sum().backward()
    assert soft.grad[:, 0].abs().max() == 0
    assert soft.grad[:, 1].abs().max() > 0


def test_a_disc_that_is_not_there_gives_a_ratio_that_is_finite():
    assert torch.isfinite(losses.ratio(torch.full((1, 2, 8, 8), -30.0), torch.tensor([0.5]))).all()
