"""Numbers and closed vocabularies as a representative reads them."""

import urllib.parse
from collections.abc import Mapping
from typing import Final

from schemas.alerts import NotificationType, rfc3339

KINDS: Final[Mapping[str, str]] = {
    "drop_rate": "Dropped calls",
    "duration_lock": "Cut off at the same length",
    "time_of_day": "At certain hours",
    "route": "On one route",
    "one_way_audio": "One-way sound",
    "redial": "Calling again at once",
    "quality": "Poor sound",
    "setup_failure": "Calls not set up",
    "worsening": "Getting worse",
}
"""Pattern kinds, in the order of the filter."""

CAUSES: Final[Mapping[str, str]] = {
    "sip_timer_or_nat": "A call timer, in the network or the router",
    "access_congestion": "A connection too busy at certain hours",
    "access_line_fault": "A fault on the line",
    "cpe_or_firmware": "The router or its software",
    "codec_or_transcoding": "The way the sound is encoded",
    "route_or_trunk": "One of the routes our calls take",
    "far_end": "The network at the other end",
    "shared_outage": "A fault that affects several customers",
    "one_way_media": "Sound that gets through one way only",
    "voice_quality_loss": "Sound lost on the way",
    "signalling_failure": "Calls that are not set up properly",
    "measurement_fault": "Our measurement: the calls were fine",
    "unknown": "Not found yet",
}

ENDINGS: Final[Mapping[str, tuple[str, str]]] = {
    "dropped": ("Cut off", "cut"),
    "probably_dropped": ("Probably cut off", "maybe"),
    "ended_at_timer": ("Cut off by a timer", "cut"),
    "one_way_audio": ("One-way sound", "sound"),
    "poor_quality": ("Poor sound", "sound"),
    "setup_failure": ("Not set up", "setup"),
    "called_again": ("Called again", "again"),
    "normal": ("Ended normally", "fine"),
}
"""How a call ended: in words, and the mark it gets in the timeline."""

RESULTS: Final[Mapping[str, str]] = {
    "accepted": "Accepted",
    "declined": "Declined",
    "unreachable": "Could not be reached",
    "not_needed": "Not needed",
    "fixed": "Fixed",
}

BANDS: Final[Mapping[str, str]] = {"low": "Low", "raised": "Raised", "high": "High"}

SEVERITY_WORDS: Final[Mapping[str, str]] = {"critical": "Critical", "major": "Major", "minor": "Minor"}

ELEMENTS: Final[Mapping[str, str]] = {
    "customer_line": "Customer line",
    "access_node": "Access node",
    "trunk": "Trunk",
    "sbc": "Session border controller",
    "cell": "Cell",
    "region": "Region",
    "cpe_firmware": "Router firmware",
    "probe": "Probe (measurement fault)",
}

TYPES: Final[Mapping[NotificationType, str]] = {
    "stayline.alert.opened": "Opened",
    "stayline.alert.updated": "Updated",
    "stayline.alert.resolved": "Resolved",
    "stayline.incident.opened": "Opened",
    "stayline.incident.cleared": "Cleared",
}

DIMENSIONS: Final[Mapping[str, tuple[str, str]]] = {
    "duration_s": ("Call length", " s"),
    "hour": ("Hours", " h UTC"),
    "trunk": ("Trunk", ""),
    "sbc": ("Session border controller", ""),
    "codec": ("Codec", ""),
    "peer_id": ("Far end", ""),
}
"""Where a pattern lives: its name, and the unit after the value."""

_EXPONENTS: Final[Mapping[str, int]] = {
    **dict.fromkeys(
        (
            *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG"),
            *("RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"),
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
# ISO 4217, table A.1: the currencies whose minor unit is not a hundredth.


def plain(word: str) -> str:
    """Return a word of a vocabulary that is not listed here as text: `far_end` is "Far end"."""
    text = word.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def money(amount_minor: int | None, currency: str | None) -> str:
    """Write an amount with its currency: `1,234.50 EUR`, `300 JPY`; "not known" without either."""
    if amount_minor is None or currency is None:
        return "not known"
    exponent = _EXPONENTS.get(currency, 2)
    whole, part = divmod(abs(amount_minor), 10**exponent)
    sign = "\N{MINUS SIGN}" if amount_minor < 0 else ""
    fraction = f".{part:0{exponent}d}" if exponent else ""
    return f"{sign}{whole:,}{fraction} {currency}"


def percent(ratio: float) -> str:
    """Write a ratio as a percentage: `80%`, `1.5%`; what is above 0 is never written as 0."""
    if 0.0 < ratio < 0.001:
        return "<0.1%"
    value = 100.0 * ratio
    return f"{value:.0f}%" if value >= 10.0 or value == round(value) else f"{value:.1f}%"


def duration(duration_ms: int) -> str:
    """Write how long a call lasted: `31.9 s`, `15 min 02 s`, `1 h 05 min`."""
    if duration_ms < 60_000:
        return f"{duration_ms / 1_000:.1f} s" if duration_ms else "0 s"
    seconds = duration_ms // 1_000
    if seconds < 3_600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3_600} h {seconds % 3_600 // 60:02d} min"


def iso(time_ms: int) -> str:
    """Write a time for the `datetime` attribute."""
    return rfc3339(time_ms)


def utc(time_ms: int) -> str:
    """Write a time for a reader without a script: `2026-01-16 14:25 UTC`."""
    text = rfc3339(time_ms)
    return f"{text[:10]} {text[11:16]} UTC"


def case_path(alert_id: str) -> str:
    """Return the path of a case's page."""
    return f"/cases/{urllib.parse.quote(alert_id, safe='')}"
