"""Which fields of events each kind of pattern needs: what can be found in a source, and what it lacks for more.

A need is a group of fields of which any one will do; a pattern needs one of every group. The groups follow what
`detectors` read: the cause of a release is looked for in `reason`, `sip_status` and `q850`, silent drops in
`silence_ms` and `packets_received`, poor sound in `loss_ratio`, or in `mos` where no loss is known.
"""

from collections.abc import Collection

from schemas.alerts import PatternKind

_CAUSE = ("reason", "sip_status", "q850")
_DROP = (*_CAUSE, "silence_ms", "packets_received")
_SOUND = ("loss_ratio", "mos")
_ANSWER = ("answer_ms",)

NEEDS: dict[PatternKind, tuple[tuple[str, ...], ...]] = {
    "drop_rate": (_ANSWER, _DROP),
    "duration_lock": (_ANSWER,),
    "time_of_day": ((*_DROP, *_SOUND),),
    "route": ((*_DROP, *_SOUND), ("trunk", "sbc", "codec", "peer_id")),
    "one_way_audio": (_ANSWER, ("packets_received",)),
    "redial": (_ANSWER, ("peer_id",)),
    "quality": (_ANSWER, _SOUND),
    "setup_failure": (_CAUSE,),
    "worsening": ((*_DROP, *_SOUND),),
}
"""Pattern -> groups of fields."""


def shown(fields: Collection[str]) -> tuple[PatternKind, ...]:
    """Return the kinds of pattern that can be found in events with these fields."""
    return tuple(kind for kind in NEEDS if not lacking(kind, fields))


def lacking(kind: PatternKind, fields: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of which these fields have none: one field of each is missing for the pattern."""
    return tuple(group for group in NEEDS[kind] if not any(field in fields for field in group))
