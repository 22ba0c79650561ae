"""The classifier's tests take its own plan, data sets and index, under the names that the other tests have for theirs."""

import pytest


@pytest.fixture
def plan(classifier_plan):
    """The contents of a tiny configuration of the classifier."""
    return classifier_plan


@pytest.fixture
def build(build_classifier):
    """A Config from a plan, without a file."""
    return build_classifier


@pytest.fixture
def edited(plan):
    """The plan with changed keys under one of its parts: `edited("data", batch=4)`."""
    return lambda part, **changes: plan | {part: plan[part] | changes}
