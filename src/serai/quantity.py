"""Quantities as people write them: ``10m``, ``1.5h``, ``4GB``, ``512 MiB``."""

from __future__ import annotations

import re
from decimal import Decimal

from serai.errors import UsageError

_SECONDS = {"d": Decimal(86400), "h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|d|h|m|s)", re.ASCII)
_PLAIN_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
_DURATION_HINT = "write a duration as 200ms, 2s, 10m, 1.5h, 1h30m or 2d; a number alone means seconds"

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB")
_BYTES = {unit.lower(): 1000**power for power, unit in enumerate(_DECIMAL)} | {
    unit.lower(): 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB", "PiB"), start=1)
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", re.ASCII)
_SIZE_HINT = "write a size as 800MB, 4GB or 1.5TB (powers of 1000), or 512MiB or 4GiB (powers of 1024)"
_LONGEST_CHARS = 40  # nobody writes a longer quantity; it keeps the arithmetic and the messages small


def seconds(text: str) -> float:
    """Reads a duration, in seconds: ``10m``, ``1.5h``, ``1h30m``; a number alone means seconds.

    Raises:
        UsageError: it is none of the accepted forms, which the hint names.
    """
    stripped = text.strip()
    if len(stripped) <= _LONGEST_CHARS:
        if _PLAIN_NUMBER.fullmatch(stripped):
            return float(stripped)
        total = _sum_of_parts(stripped)
        if total is not None:
            return float(total)
    raise UsageError(f"{text[:_LONGEST_CHARS]!r} is not a duration", hint=_DURATION_HINT)


def _sum_of_parts(text: str) -> Decimal | None:
    """Adds up ``1h30m``: each part in a smaller unit than the one before it, or None."""
    total, last, position = Decimal(0), Decimal("Infinity"), 0
    while part := _DURATION_PART.match(text, position):
        unit = _SECONDS[part[2]]
        if unit >= last:
            return None
        total += Decimal(part[1]) * unit
        last, position = unit, part.end()
    return total if position == len(text) and position else None


def bytes_of(text: str) -> int:
    """Reads a size, in bytes: ``4GB`` is 4 * 1000**3 and ``512MiB`` is 512 * 1024**2; fractions are rounded.

    Raises:
        UsageError: it is none of the accepted forms, which the hint names.
    """
    match = _SIZE.fullmatch(text.strip()[: _LONGEST_CHARS + 1])
    if match and len(match[0]) <= _LONGEST_CHARS:
        unit = match[2].lower() or "b"
        if unit in _BYTES:
            return int((Decimal(match[1]) * _BYTES[unit]).to_integral_value())
    raise UsageError(f"{text[:_LONGEST_CHARS]!r} is not a size", hint=_SIZE_HINT)


def format_seconds(value_s: float) -> str:
    """Writes a duration for people, to two units or three digits; `seconds` can read it again."""
    if value_s < 0:
        return f"-{format_seconds(-value_s)}"
    if value_s < 0.9995:
        return f"{round(value_s * 1000)}ms"
    if value_s < 59.95:
        return f"{value_s:.1f}".removesuffix(".0") + "s"
    # The unit is chosen after rounding to the smaller one, so that 59 min 59.9 s becomes 1h and not 60m.
    for big, small in (("m", "s"), ("h", "m"), ("d", "h")):
        small_s, per_big = int(_SECONDS[small]), int(_SECONDS[big] / _SECONDS[small])
        whole, rest = divmod(round(value_s / small_s), per_big)
        next_unit = {"m": 60, "h": 24, "d": None}[big]
        if next_unit is None or whole < next_unit:
            return f"{whole}{big}" + (f"{rest}{small}" if rest else "")
    raise AssertionError("days have no bigger unit")


def format_bytes(value: int) -> str:
    """Writes a size for people in powers of 1000, to three digits; `bytes_of` can read it again."""
    if value < 0:
        return f"-{format_bytes(-value)}"
    amount = float(value)
    for unit in _DECIMAL[:-1]:
        if amount < 999.5:
            return _three_digits(amount) + f" {unit}"
        amount /= 1000
    return _three_digits(amount) + f" {_DECIMAL[-1]}"


def _three_digits(amount: float) -> str:
    decimals = 2 if amount < 9.995 else 1 if amount < 99.95 else 0
    text = f"{amount:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text
