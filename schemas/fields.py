"""The fields that the compiled reader knows: of what kind they are, and the limits that the contract sets.

A field is a number, its index in `FIELD_NAMES`. That the limits are those of `schemas.events`, a property test holds.
"""

import numpy as np

from schemas.columns import DIRECTIONS, PLACES, RELEASERS
from schemas.events import COUNT_MAX, TIME_MS_MAX

INTEGERS: tuple[tuple[str, int, int], ...] = (
    ("start_ms", 0, TIME_MS_MAX),
    ("end_ms", 0, TIME_MS_MAX),
    ("answer_ms", 0, TIME_MS_MAX),
    ("at_ms", 0, TIME_MS_MAX),
    ("interval_ms", 0, COUNT_MAX),
    ("packets_received", 0, COUNT_MAX),
    ("packets_sent", 0, COUNT_MAX),
    ("silence_ms", 0, COUNT_MAX),
    ("sip_status", 100, 699),
    ("q850", 0, 1023),
)
MEASURES: tuple[tuple[str, float, float], ...] = (
    ("mos", 1.0, 5.0),
    ("loss_ratio", 0.0, 1.0),
    ("discard_ratio", 0.0, 1.0),
    ("burst_ratio", 0.0, 1e15),
    ("jitter_ms", 0.0, 1e15),
    ("rtt_ms", 0.0, 1e15),
    ("value", -1e15, 1e15),
)
TEXTS: tuple[tuple[str, int, int], ...] = (("call_id", 1, 128), ("customer_id", 1, 64), ("peer_id", 0, 65_536))
CODED: tuple[tuple[str, int, int], ...] = (
    ("reason", 0, 65_536),
    ("codec", 0, 65_536),
    *((name, 1, 128) for name in PLACES),
    ("element_kind", 1, 128),
    ("element_id", 1, 128),
    ("metric", 1, 128),
)
WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (("direction", DIRECTIONS), ("released_by", RELEASERS))
TYPES: tuple[str, ...] = ("call", "media", "link")

INTEGER_NAMES: tuple[str, ...] = tuple(name for name, *_ in INTEGERS)
MEASURE_NAMES: tuple[str, ...] = tuple(name for name, *_ in MEASURES)
TEXT_NAMES: tuple[str, ...] = tuple(name for name, *_ in TEXTS)
CODED_NAMES: tuple[str, ...] = tuple(name for name, *_ in CODED)
WORD_NAMES: tuple[str, ...] = tuple(name for name, _ in WORDS)
_GROUPS = (INTEGER_NAMES, MEASURE_NAMES, TEXT_NAMES, CODED_NAMES, WORD_NAMES, ("type",))

FIELD_NAMES: tuple[str, ...] = tuple(name for group in _GROUPS for name in group)
FIELDS = len(FIELD_NAMES)
OTHER = FIELDS
"""A field that the contract does not know."""

MEASURES_AT, TEXTS_AT, CODED_AT, WORDS_AT = np.cumsum([len(group) for group in _GROUPS])[:4].tolist()
"""Where each kind of field begins; integers do at 0."""

KIND_INTEGER, KIND_MEASURE, KIND_TEXT, KIND_CODED, KIND_WORD, KIND_TYPE, KIND_OTHER = range(7)
KIND = np.array([kind for kind, group in enumerate((*_GROUPS, ("",))) for _ in group], np.int64)
_LIMITS = [limits for _, *limits in (*INTEGERS, *MEASURES, *TEXTS, *CODED)]
LOW = np.array([low for low, _ in _LIMITS], np.float64)
HIGH = np.array([high for _, high in _LIMITS], np.float64)
"""By field: the least and the greatest number, or how many characters there may be. float64 has them all exactly."""
