"""Numbers as a person reads them: one rounding for one number, wherever it is shown."""

import math
from decimal import ROUND_HALF_UP, Decimal

EXACT = Decimal("1e-9")  # what is alike up to here was computed in another order


def shown(value: float | None, digits: int = 1, signed: bool = False) -> str:
    """Return a number with so many digits behind the point, halves away from zero; nothing where there is none.

    The rounding is decimal, so that 3.55 and -3.55 are +3.6 and −3.6, whichever way a difference was taken, and what
    rounds to zero is 0.0 without a sign.
    """
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    exact = Decimal(value).quantize(EXACT, ROUND_HALF_UP)
    rounded = exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    if not rounded:
        return format(abs(rounded), "f")
    return format(rounded, "+,f" if signed else ",f").replace("-", "−")


def counted(number: int, noun: str) -> str:
    """Return a number of things: `1 run`, `1,200 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def level(percent: float | None) -> str:
    """Return ` (90 %)` of an interval that is not the usual one of 95 %; nothing of that, or where there is none."""
    if percent is None or shown(percent) in ("", "95.0"):
        return ""
    return f" ({shown(percent).removesuffix('.0')} %)"


def interval(low: float | None, high: float | None) -> str:
    """Return an interval as `[−0.3, +1.2]`; nothing where there is none.

    It has more digits where a bound beside zero would be shown as zero, so that whether it holds zero can be seen.
    """
    bounds = low, high
    digits = next((d for d in (1, 2, 3) if not any(b and shown(b, d) == shown(0.0, d) for b in bounds)), 1)
    return f"[{shown(low, digits, signed=True)}, {shown(high, digits, signed=True)}]" if shown(low) else ""
