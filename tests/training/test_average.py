import pytest
import torch
from torch import nn

from funduscope.training.average import Average


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def values(own):
    return {name: value.clone() for name, value in own.state_dict().items()}


def moved(own, by):
    """All its values, counters too, changed by a number."""
    for value in own.state_dict().values():
        value += by


def test_the_average_follows_by_its_decay():
    own = network()
    before, average = values(own), Average(own, 0.75)
    moved(own, 1)
    average.update(1000)
    for name, value in average.state.items():
        by = 0.25 if value.is_floating_point() else 1
        torch.testing.assert_close(value, before[name] + by)


def test_early_on_it_is_over_few_steps():
    own = network()
    before, average = values(own)["0.weight"], Average(own, 0.999)
    moved(own, 1)
    average.update(0)
    torch.testing.assert_close(average.state["0.weight"], before + 0.9)


def test_inside_the_network_has_the_average_and_afterwards_its_own_to_the_bit():
    own = network()
    average = Average(own, 0.5)
    moved(own, 3)
    average.update(1000)
    before = values(own)
    with average:
        assert all(torch.equal(value, average.state[name]) for name, value in own.state_dict().items())
        assert not torch.equal(own.state_dict()["1.running_var"], before["1.running_var"])
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


def test_an_error_inside_gives_the_network_its_own_values_back():
    own = network()
    average = Average(own, 0.5)
    moved(own, 1)
    before = values(own)

    def fails():
        with average:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


def test_without_a_decay_nothing_is_kept_nor_changed():
    own = network()
    average = Average(own, 0.0)
    moved(own, 1)
    average.update(1)
    before = values(own)
    with average:
        assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    assert average.state == {}


def test_a_loaded_average_goes_on_as_if_it_had_not_stopped():
    own, other = network(), network()
    straight = Average(own, 0.9)
    moved(own, 1)
    straight.update(5)
    resumed = Average(other, 0.9)
    other.load_state_dict(own.state_dict())
    resumed.load({name: value.clone() for name, value in straight.state.items()})
    for network_, average in ((own, straight), (other, resumed)):
        moved(network_, 2)
        average.update(6)
    assert all(torch.equal(value, resumed.state[name]) for name, value in straight.state.items())
