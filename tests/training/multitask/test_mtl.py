import math

import pytest
import torch

from funduscope.training.multitask.mtl import MultiTaskOptimiser

LR, WEIGHT_DECAY = 0.1, 0.01
B1, B2, EPSILON = 0.9, 0.999, 1e-8
A, B = 3.0, 10.0  # the minima of the two losses (w - A)^2 and 4 (w - B)^2


class Adam:
    """Adam with decoupled weight decay on one number, as the paper writes it."""

    def __init__(self):
        self.m = self.v = 0.0
        self.t = 0

    def step(self, w, gradient):
        self.t += 1
        self.m = B1 * self.m + (1 - B1) * gradient
        self.v = B2 * self.v + (1 - B2) * gradient**2
        m, v = self.m / (1 - B1**self.t), self.v / (1 - B2**self.t)
        return w * (1 - LR * WEIGHT_DECAY) - LR * m / (math.sqrt(v) + EPSILON)


def gradient_a(w):
    return 2 * (w - A)


def gradient_b(w):
    return 8 * (w - B)


def by_hand_mtl_io(rounds):
    w, one, other = 0.0, Adam(), Adam()
    for _ in range(rounds):
        w = one.step(w, gradient_a(w))
        w = other.step(w, gradient_b(w))
    return w


def by_hand_alternating(rounds):
    w, shared = 0.0, Adam()
    for _ in range(rounds):
        w = shared.step(w, gradient_a(w))
        w = shared.step(w, gradient_b(w))
    return w


def by_hand_sum(rounds):
    w, shared = 0.0, Adam()
    for _ in range(rounds):
        w = shared.step(w, gradient_a(w) + gradient_b(w))
    return w


BY_HAND = {"mtl-io": by_hand_mtl_io, "alternating": by_hand_alternating, "sum": by_hand_sum}


class Pair:
    """One shared number, one of each task's own, and the two losses on them."""

    def __init__(self, strategy, weights=None):
        self.shared, self.own_a, self.own_b = (
            torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(3)
        )
        reach = {"a": [self.shared, self.own_a], "b": [self.shared, self.own_b]}
        self.optimiser = MultiTaskOptimiser(reach, strategy, LR, WEIGHT_DECAY, weights)

    def loss_a(self):
        return ((self.shared - A) ** 2 + (self.own_a - 1) ** 2).sum()

    def loss_b(self):
        return (4 * (self.shared - B) ** 2 + (self.own_b + 1) ** 2).sum()

    def round(self, *tasks):
        losses = {"a": self.loss_a, "b": self.loss_b}
        return self.optimiser.step({task: losses[task] for task in tasks or losses}, LR)

    def numbers(self):
        return [p.item() for p in (self.shared, self.own_a, self.own_b)]


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("strategy", BY_HAND)
def test_each_strategy_is_its_formula_by_hand(strategy, rounds):
    pair = Pair(strategy)
    for _ in range(rounds):
        pair.round()
    assert pair.shared.item() == pytest.approx(BY_HAND[strategy](rounds), abs=1e-12)


def test_the_strategies_differ_after_two_rounds():
    ends = [by_hand(2) for by_hand in BY_HAND.values()]
    assert min(abs(ends[i] - ends[j]) for i in range(3) for j in range(i)) > 1e-3


def moments(pair, name):
    """The Adam state of the shared number in one of the Adams."""
    state = pair.optimiser.state_dict()[name]["state"][0]
    return state["exp_avg"].item(), state["exp_avg_sq"].item(), int(state["step"])


def test_each_tasks_moments_see_only_that_tasks_gradient():
    pair = Pair("mtl-io")
    pair.round()
    after_a = LR * 1.0  # the first step of Adam is lr long; weight decay of 0 is 0
    first, second = gradient_a(0.0), gradient_b(after_a)
    assert moments(pair, "a") == pytest.approx((0.1 * first, 0.001 * first**2, 1))
    assert moments(pair, "b") == pytest.approx((0.1 * second, 0.001 * second**2, 1))


def test_in_alternating_steps_the_moments_mix():
    pair = Pair("alternating")
    pair.round()
    mixed = 0.9 * 0.1 * gradient_a(0.0) + 0.1 * gradient_b(LR)
    assert moments(pair, "all")[0] == pytest.approx(mixed)
    assert moments(pair, "all")[2] == 2


@pytest.mark.parametrize("strategy", BY_HAND)
def test_what_a_task_does_not_reach_stays(strategy):
    pair = Pair(strategy)
    pair.round()
    before = pair.numbers()
    pair.round("a")
    after = pair.numbers()
    assert after[0] != before[0]
    assert after[1] != before[1]
    assert after[2] == before[2]


@pytest.mark.parametrize("strategy", BY_HAND)
def test_no_gradient_is_left_after_a_round(strategy):
    pair = Pair(strategy)
    pair.round()
    assert pair.shared.grad is pair.own_a.grad is pair.own_b.grad is None


def test_the_losses_before_each_tasks_own_step_are_returned():
    assert Pair("sum").round() == pytest.approx({"a": 10.0, "b": 401.0})
    assert Pair("mtl-io").round() == pytest.approx({"a": 10.0, "b": 4 * (LR - B) ** 2 + 1})


def test_the_sum_weighs_losses_as_it_is_told():
    plain, weighed, alone = Pair("sum"), Pair("sum", {"b": 1e-6}), Pair("sum")
    alone.round("a")
    told = weighed.round()
    assert told == plain.round()  # each loss is told as it is
    assert weighed.numbers()[1] == pytest.approx(alone.numbers()[1])
    assert weighed.shared.item() == pytest.approx(alone.shared.item())


def test_tasks_step_in_the_order_of_reach_not_of_the_losses():
    one, other = Pair("mtl-io"), Pair("mtl-io")
    one.optimiser.step({"a": one.loss_a, "b": one.loss_b}, LR)
    other.optimiser.step({"b": other.loss_b, "a": other.loss_a}, LR)
    assert one.numbers() == other.numbers()


def test_the_learning_rate_of_the_round_is_used():
    pair = Pair("mtl-io")
    pair.optimiser.step({"a": pair.loss_a}, 0.025)
    assert pair.shared.item() == pytest.approx(0.025)


@pytest.mark.parametrize("strategy", BY_HAND)
def test_a_saved_state_goes_on_exactly(strategy):
    straight, first, second = Pair(strategy), Pair(strategy), Pair(strategy)
    for _ in range(4):
        straight.round()
    for _ in range(2):
        first.round()
    for old, new in zip(
        (first.shared, first.own_a, first.own_b), (second.shared, second.own_a, second.own_b), strict=True
    ):
        new.data.copy_(old.data)
    second.optimiser.load_state_dict(first.optimiser.state_dict())
    for _ in range(2):
        second.round()
    assert second.numbers() == straight.numbers()
    assert second.optimiser.state_dict() == straight.optimiser.state_dict()
