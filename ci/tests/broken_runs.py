"""A run that is broken off between two steps and started again, for the tests of resuming."""

import pytest

from s4d_lib.training import loop
from s4d_lib.training.runs import train


def interrupted(monkeypatch, config, root, after):
    """Train and break off, as a kill between two steps does, after `after` updates; then train again."""
    step, calls = loop._update, []

    def stopping(*args):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        return step(*args)

    monkeypatch.setattr(loop, "_update", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(config, root)
    monkeypatch.setattr(loop, "_update", step)
    return train(config, root)
