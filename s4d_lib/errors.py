"""mistake → sentence     what a user can mend is `Refused`; every other error is a defect and keeps its traceback.

A refusal names the file, the value and the remedy. The `s4d` command prints it in one sentence and ends with exit code
2. It is a ValueError, so that code which only asks whether input was good need not know this class. A ValueError that
is none says that this library, or one below it, met a state that it should not have come into.
"""

import importlib.util


class Refused(ValueError):
    """Input that this library does not take: a file, a value, a combination; the message says what to do instead."""


def require(package: str, extra: str, purpose: str = "this", error: type[Refused] = Refused) -> None:
    """`error`, which says what to install, where a package that one of the extras brings is absent.

    Called right before the import. `package` is the name that is imported, `extra` one of pyproject.toml's,
    `purpose` what cannot be done without it.
    """
    if importlib.util.find_spec(package) is None:
        raise error(f"{purpose} needs the package {package!r}, which is not installed: pip install 's4d-book[{extra}]'")
