"""Numbers, times and sizes as short texts for people."""

from __future__ import annotations

from datetime import datetime


def format_number(value: float | None, digits: int) -> str:
    """A number with so many decimal places; `-` for None and NaN."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def format_duration(seconds: float | None) -> str:
    """A duration such as `9.5 s`, `3 min 05 s` or `2 h 07 min`; `-` for None and NaN."""
    if seconds is None or seconds != seconds:
        return "-"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def format_bytes(count: float | None) -> str:
    """Bytes in GB; `-` for None and 0."""
    return f"{count / 1e9:.2f} GB" if count and count == count else "-"


def format_time(time: datetime | None) -> str:
    """A moment in UTC; `-` for None."""
    return "-" if time is None else f"{time:%Y-%m-%d %H:%M:%S} UTC"


def shorten(text: str, width: int) -> str:
    """The text, cut to so many characters."""
    return text if len(text) <= width else text[: width - 1] + "…"
