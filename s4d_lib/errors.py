"""mistake → sentence     what a user can mend is `Refused`; every other error is a defect and keeps its traceback.

A refusal names the file, the value and the remedy. The `s4d` command prints it in one sentence and ends with exit code
2. It is a ValueError, so that code which only asks whether input was good need not know this class. A ValueError that
is none says that this library, or one below it, met a state that it should not have come into.
"""


class Refused(ValueError):
    """Input that this library does not take: a file, a value, a combination; the message says what to do instead."""
