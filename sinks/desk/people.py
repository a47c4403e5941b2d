"""Who may use the desk, kept: sessions, logins that have begun, API keys, and the audit's records.

Secrets are kept as their SHA-256 only: they are 256 random bits, so nothing slower is needed against guessing.
"""

import hashlib
import hmac
import secrets
from typing import Final, Literal, get_args

from msgspec import Struct

from sinks.desk.database import one_row
from sinks.desk.store import DeskStore

Role = Literal["csr", "supervisor", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

Scope = Literal["read", "act", "reveal", "reassign", "audit", "keys"]
"""See cases; record actions; see who a customer is; take cases from colleagues; read the audit; make API keys."""

SCOPES: Final[dict[Role, frozenset[Scope]]] = {
    "csr": frozenset({"read", "act", "reveal"}),
    "supervisor": frozenset({"read", "act", "reveal", "reassign", "audit"}),
    "admin": frozenset(get_args(Scope)),
}
"""What a role may."""

KEY_SCOPES: Final[tuple[Scope, ...]] = ("read", "act", "audit")
"""What an API key may be given: a program sees no identities and makes no keys."""

SESSION_MS: Final = 10 * 3_600_000
"""A shift and its overtime; then one logs in again."""

LOGIN_MS: Final = 10 * 60_000
"""A login must come back from the identity provider within this time."""

KEY_PREFIX: Final = "sdk_"
"""Makes a key that leaked recognisable to those who search for such."""


class Person(Struct, frozen=True):
    """Who asks.

    Attributes:
        who: name in records: the provider's subject, the key's name, or `local`.
        name: as shown.
        session: the cookie's value, from which forms get their token; empty for a key.
    """

    who: str
    name: str
    scopes: frozenset[Scope]
    session: str = ""


class Login(Struct, frozen=True):
    """A login that has begun: what the provider's answer is held against."""

    verifier: str
    nonce: str
    back: str


class Key(Struct, frozen=True):
    """An API key without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    created_ms: int
    expires_ms: int


class Record(Struct, frozen=True):
    """A line of the audit: who did what about whom, and why."""

    number: int
    at_ms: int
    who: str
    what: str
    about: str
    reason: str


class People:
    """The desk's people.

    Args:
        store: whose database they are in, and whose clock ends their sessions.
    """

    def __init__(self, store: DeskStore) -> None:
        self._db = store.database
        self._clock = store.clock

    # Sessions

    def open_session(self, who: str, name: str, role: Role) -> str:
        """Begin a session; return the cookie's value."""
        value = secrets.token_urlsafe(32)
        with self._db.write() as db:
            db.rows("DELETE FROM session WHERE expires_ms < :now", {"now": self._clock()})
            db.rows(
                "INSERT INTO session (id, who, name, role, expires_ms) VALUES (:id, :who, :name, :role, :expires)",
                {"id": digest(value), "who": who, "name": name, "role": role, "expires": self._clock() + SESSION_MS},
            )
        return value

    def session(self, value: str) -> Person | None:
        """Return whose session a cookie's value is, None if nobody's any more."""
        query = "SELECT who, name, role FROM session WHERE id = :id AND expires_ms > :now"
        with self._db.read() as db:
            found = one_row(db.rows(query, {"id": digest(value), "now": self._clock()}))
        return None if found is None else Person(found[0], found[1], SCOPES[found[2]], value)

    def end_session(self, value: str) -> None:
        """End a session."""
        with self._db.write() as db:
            db.rows("DELETE FROM session WHERE id = :id", {"id": digest(value)})

    # Logins

    def begin_login(self, state: str, login: Login) -> None:
        """Remember a login until it comes back."""
        with self._db.write() as db:
            db.rows("DELETE FROM login WHERE expires_ms < :now", {"now": self._clock()})
            db.rows(
                "INSERT INTO login (state, verifier, nonce, back, expires_ms) "
                "VALUES (:state, :verifier, :nonce, :back, :expires)",
                {
                    "state": digest(state), "verifier": login.verifier, "nonce": login.nonce, "back": login.back,
                    "expires": self._clock() + LOGIN_MS,
                },
            )  # fmt: skip

    def finish_login(self, state: str) -> Login | None:
        """Return a login that has begun, once; None for any other state."""
        query = "DELETE FROM login WHERE state = :state AND expires_ms > :now RETURNING verifier, nonce, back"
        with self._db.write() as db:
            found = one_row(db.rows(query, {"state": digest(state), "now": self._clock()}))
        return None if found is None else Login(*found)

    # Keys

    def make_key(self, name: str, scopes: list[Scope], days: int, by: str) -> str:
        """Make an API key; return it, which can be done but once."""
        public, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        now = self._clock()
        with self._db.write() as db:
            db.rows(
                "INSERT INTO api_key (id, digest, name, scopes, created_ms, expires_ms) "
                "VALUES (:id, :digest, :name, :scopes, :now, :expires)",
                {
                    "id": public, "digest": digest(secret), "name": name, "scopes": " ".join(scopes), "now": now,
                    "expires": now + days * 86_400_000,
                },
            )  # fmt: skip
        self.note(by, "key made", public, name)
        return f"{KEY_PREFIX}{public}_{secret}"

    def api_keys(self) -> list[Key]:
        """List the keys, the newest first."""
        query = "SELECT id, name, scopes, created_ms, expires_ms FROM api_key ORDER BY created_ms DESC, id"
        with self._db.read() as db:
            return [Key(row[0], row[1], row[2].split(), row[3], row[4]) for row in db.rows(query)]

    def key(self, text: str) -> Person | None:
        """Return what a key may, None if it is none, or has run out."""
        public, _, secret = text.removeprefix(KEY_PREFIX).partition("_")
        query = "SELECT digest, name, scopes FROM api_key WHERE id = :id AND expires_ms > :now"
        with self._db.read() as db:
            found = one_row(db.rows(query, {"id": public.replace("\0", ""), "now": self._clock()}))
        if found is None or not hmac.compare_digest(found[0], digest(secret)):
            return None
        return Person(f"key {found[1]}", found[1], frozenset(found[2].split()))

    def revoke_key(self, public: str, by: str) -> None:
        """End a key."""
        with self._db.write() as db:
            db.rows("DELETE FROM api_key WHERE id = :id", {"id": public})
        self.note(by, "key revoked", public, "")

    # The audit

    def note(self, who: str, what: str, about: str, reason: str) -> None:
        """Add a line to the audit; on return it is durable. Nothing of the desk changes or removes one.

        (To forget a customer blanks whom a line was about.)
        """
        with self._db.write() as db:
            db.rows(
                "INSERT INTO audit (number, at_ms, who, what, about, reason) "
                "SELECT coalesce(max(number), 0) + 1, :at_ms, :who, :what, :about, :reason FROM audit",
                {"at_ms": self._clock(), "who": who, "what": what, "about": about, "reason": reason},
            )

    def audit(self, before: int, limit: int) -> list[Record]:
        """List the audit's lines with a number below `before`, the newest first."""
        query = (
            "SELECT number, at_ms, who, what, about, reason FROM audit WHERE number < :before "
            "ORDER BY number DESC LIMIT :limit"
        )
        with self._db.read() as db:
            return [Record(*row) for row in db.rows(query, {"before": before, "limit": limit})]


def digest(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
