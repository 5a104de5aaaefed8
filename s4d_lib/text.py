"""text → text     names and words from outside, made fit for sorting, a terminal and a table."""

import re


def natural_order(name: str) -> tuple:
    """A sort key that compares runs of digits by value: f2 < f10; equal values by spelling."""
    parts = re.split(r"(\d+)", name)
    return tuple(_value(part) if i % 2 else part for i, part in enumerate(parts)), name


def _value(digits: str) -> tuple[int, str]:
    """A number of any length as what compares like it; Python turns no more than 4300 digits into a number."""
    plain = str(int(digits)) if len(digits) < 4000 else digits.lstrip("0")
    return len(plain), plain


def printable(text: str, most: int | None = None) -> str:
    """Text with all that could steer a terminal, or cannot be encoded, spelled out; `most` leaves out its middle."""
    if most is not None and len(text) > most:
        text = f"{text[: most // 2]}...{text[-most // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def no_formula(text: str, before: str = "./") -> str:
    """A cell that no spreadsheet takes for a formula; of a path, "./" in front leaves the meaning as it is."""
    return before + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
