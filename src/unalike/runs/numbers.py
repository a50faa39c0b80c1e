"""Numbers as people read them, the same on the command line and on pages."""

from __future__ import annotations

import math

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SMALLEST, _LARGEST = 1e-4, 1e15


def number(value: float, digits: int = 4) -> str:
    """A number to so many digits; never broken between lines.

    Example:
        >>> number(12.34567), number(1234567.0), number(0.00025), number(2.0)
        ('12.35', '1,235,000', '0.00025', '2')
        >>> number(6.67e-06).replace(chr(0xA0), " ")
        '6.67 × 10⁻⁶'
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}".removeprefix("-") if value == 0 else str(value)
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if not _SMALLEST <= 10.0**power < _LARGEST:
        return f"{_short(mantissa)}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}10" + str(power).translate(
            _SUPERSCRIPTS
        )
    return _short(f"{float(f'{mantissa}e{power}'):,.{max(0, digits - 1 - power)}f}")


def percent(share: float) -> str:
    """A share in percent: whole from 10%, else two digits.

    Example:
        >>> percent(0.1234), percent(0.00012), percent(0)
        ('12%', '0.012%', '0%')
    """
    value = 100 * share
    return f"{value:,.0f}%" if value >= 10 else f"{number(value, 2)}%"


def counted(count: int, noun: str) -> str:
    """A count and its noun, in words.

    Example:
        >>> counted(1, "image"), counted(1200, "image")
        ('1 image', '1,200 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _short(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
