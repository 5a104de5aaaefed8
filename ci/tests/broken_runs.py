"""A run that is broken off between two steps and started again, for the tests of resuming."""

import pytest

from s4d_lib import training
from s4d_lib.runs import train


def interrupted(monkeypatch, config, root, after):
    """Train and break off, as a kill between two steps does, after `after` updates; then train again."""
    step, calls = training._update, []

    def stopping(*args):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        return step(*args)

    monkeypatch.setattr(training, "_update", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(config, root)
    monkeypatch.setattr(training, "_update", step)
    return train(config, root)
