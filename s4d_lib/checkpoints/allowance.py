"""what stands in the way → let go, or refused     tensors without a place, lost blocks, a configuration that disagrees.

A network from which a part is missing, or beside which a part is left, computes something else and looks alike. So
whatever a file holds and our model does not (layer scale, register tokens, norms of queries, tables of relative
positions) is in the way, and so is what a file says of itself and does not hold. A caller who knows better names it:
a tensor by its key, by a part of it (`gamma_1`) or a pattern (`blocks.*.ls1.gamma`), a statement by its word (`depth`).
"""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from s4d_lib.checkpoints.names import UNKNOWN
from s4d_lib.errors import Refused
from s4d_lib.weights.containers import BadCheckpoint, describe_keys

IN_A_BLOCK = re.compile(r"(^|\.)(\w*blocks|layers?|resblocks|stages|h)\.\d+\.")
# Outside the blocks these come after the encoder, so its latents are the same without them.
AFTER = re.compile(r"(^|\.)(heads?|classifier|fc|fc_cls|fc_norm|projector|projection_head|prototypes|logit_scale|"
                   r"mask_token|decoder\w*|criterion|loss)(\.|$)")


class Allowance:
    """What a caller lets go, and what of it was in the way; `check` refuses a name that nothing bore."""

    def __init__(self, path: Path, names: Iterable[str] = ()) -> None:
        self.path, self.names, self.used = path, tuple(names), set()

    def lets(self, key: str) -> bool:
        """Whether a tensor or a statement may go."""
        fitting = {name for name in self.names
                   if name == key or fnmatchcase(key, name) or f".{name}." in f".{key}."}
        self.used |= fitting
        return bool(fitting)

    def refuse_unplaced(self, dropped: Mapping[str, str]) -> None:
        """BadCheckpoint where a tensor that takes part in the function found no place; `dropped`: file key → why."""
        left = [key for key, reason in dropped.items() if reason == UNKNOWN and takes_part(key)]
        if left := [key for key in left if not self.lets(key)]:
            where = "in its blocks" if any(IN_A_BLOCK.search(key) for key in left) else "in its encoder"
            raise BadCheckpoint(
                self.path, f"{len(left)} tensors {where} have no place in this model, first {describe_keys(left)}: "
                "without them it would be another network",
                f"use the code of its authors, or let them go with s4d convert --allow {_short(left[0])}")

    def refuse(self, statements: Mapping[str, str]) -> tuple[str, ...]:
        """Notes on what was let go of word → what disagrees; BadCheckpoint with the first that was not."""
        notes = []
        for word, sentence in statements.items():
            if not self.lets(word):
                raise BadCheckpoint(self.path, sentence,
                                    f"check that the file is complete, or let that go with --allow {word}")
            notes.append(f"let go ({word}): {sentence}")
        return tuple(notes)

    def check(self) -> None:
        """Refused where a name let nothing go: it may be misspelt."""
        if unused := [name for name in self.names if name not in self.used]:
            raise Refused(f"{self.path}: nothing called {unused[0]!r} was in the way; leave out --allow {unused[0]}")


def takes_part(key: str) -> bool:
    """Whether a tensor that no layout knows may change what the encoder computes."""
    return bool(IN_A_BLOCK.search(key)) or not AFTER.search(key)


def _short(key: str) -> str:
    """`gamma_1` of `blocks.0.gamma_1`: what names the tensor in every block at once."""
    return re.sub(r"^.*(?:blocks|layers?|h)\.\d+\.", "", key)
