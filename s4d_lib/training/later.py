"""setting → its age     settings that came after the first runs, so that a fingerprint can pass over them.

A fingerprint covers every setting of a run. A setting that is added later would change the fingerprints of all runs
before it, although at its default it does what they did. So it says where it stands that it came later, and counts
from the first value on that is not its default: `field: int = later(3, ge=1, description=…)`. Derived in chapter 06.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


def later(default: Any, **more: Any) -> Any:
    """A pydantic field that the first runs did not have; `more` is what `Field` takes."""
    return Field(default, json_schema_extra={"since": 2}, **more)


def later_fields(config: type[BaseModel]) -> frozenset[str]:
    """Names of the settings of a configuration that are marked with `later`."""
    return frozenset(name for name, field in config.model_fields.items()
                     if isinstance(field.json_schema_extra, dict) and "since" in field.json_schema_extra)


def unused(config: BaseModel) -> frozenset[str]:
    """The later settings that stand at their defaults: the run is what it was before they were added."""
    fields = type(config).model_fields
    return frozenset(name for name in later_fields(type(config)) if getattr(config, name) == fields[name].default)
