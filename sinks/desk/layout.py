"""The desk's tables, and their version."""

VERSION = 2
"""The layout below. A program reads its own version only; another one is refused."""

# `card` holds what is shown: of each case and incident the newest revision. Its `seq` is drawn anew whenever what is
# shown changes, so "what changed since" is a range of an index, and a reader who was away gets each case once.
# `stage` is where a case stands with the team: to_call, contacted, over. `value_rank` is the value at risk, -1 for one
# that is not known. `card_ranked` holds all that lists and counts look at, so neither reads cases it does not show.
TABLES = """
CREATE TABLE feed (seq INTEGER NOT NULL, version INTEGER NOT NULL) STRICT;

CREATE TABLE card (
    case_id TEXT PRIMARY KEY,
    seq INTEGER NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    type TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    is_open INTEGER NOT NULL,
    is_alert INTEGER NOT NULL,
    customer_id TEXT NOT NULL,
    severity INTEGER NOT NULL,
    kind TEXT NOT NULL,
    band TEXT NOT NULL,
    region TEXT NOT NULL,
    incident_id TEXT NOT NULL,
    value_rank INTEGER NOT NULL,
    currency TEXT NOT NULL,
    detected_ms INTEGER NOT NULL,
    stage TEXT NOT NULL DEFAULT 'to_call',
    snoozed_ms INTEGER NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '',
    actions INTEGER NOT NULL DEFAULT 0,
    last_action TEXT NOT NULL DEFAULT '',
    data BLOB NOT NULL
) STRICT;
CREATE INDEX card_ranked ON card (
    is_alert, stage, value_rank DESC, severity DESC, detected_ms DESC, case_id DESC, snoozed_ms, currency
);
CREATE INDEX card_facets ON card (
    is_alert, stage, severity, kind, band, region, currency, snoozed_ms, value_rank
);
CREATE INDEX card_owner ON card (owner, stage);
CREATE INDEX card_customer ON card (customer_id);
CREATE INDEX card_incident ON card (incident_id);

CREATE TABLE revision (
    id TEXT PRIMARY KEY,
    case_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    type TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    severity INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX revision_case ON revision (case_id, revision);
CREATE INDEX revision_time ON revision (time_ms, type, severity);

CREATE TABLE action (
    case_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    seq INTEGER NOT NULL UNIQUE,
    at_ms INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    remedy_id TEXT NOT NULL,
    until_ms INTEGER NOT NULL,
    PRIMARY KEY (case_id, number)
) STRICT;

CREATE TABLE session (
    id TEXT PRIMARY KEY,
    who TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE login (
    state TEXT PRIMARY KEY,
    verifier TEXT NOT NULL,
    nonce TEXT NOT NULL,
    back TEXT NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE api_key (
    id TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE audit (
    number INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    about TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT;
"""


def statements(*, postgres: bool = False) -> list[str]:
    """Return what makes the tables, one statement each, in the words of SQLite or of PostgreSQL."""
    text = TABLES
    if postgres:
        # The C collation is the one of bytes, which is SQLite's too.
        words = {" INTEGER": " BIGINT", " TEXT": ' TEXT COLLATE "C"', " BLOB": " BYTEA", ") STRICT;": ");"}
        for ours, theirs in words.items():
            text = text.replace(ours, theirs)
    found = [one.strip() for one in text.split(";") if one.strip()]
    return [*found, f"INSERT INTO feed (seq, version) VALUES (0, {VERSION})"]  # noqa: S608  a constant of this module
