"""Login with an identity provider: OpenID Connect 1.0, authorization code flow with PKCE (RFC 7636)."""

import base64
import hashlib
import secrets
import threading
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx2
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from msgspec import Struct

from sinks.desk.people import ROLES, Login, Role
from sinks.outputs import Clock, OutputDownError

ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures that are believed: none with a shared secret, and never `none`."""

LEEWAY_S: Final = 60
"""How far the provider's clock may be from ours."""

TIMEOUT_S: Final = 10.0

ANSWER_BYTES_MAX: Final = 1 << 20


class LoginRefusedError(Exception):
    """What came back is no login; the text is for the log."""


class Settings(Struct, frozen=True):
    """How to reach the provider, and what its claim means.

    Attributes:
        issuer: its identifier, under which its metadata lies.
        claim: the claim of the ID token that holds a person's groups.
        roles: role -> values of the claim that give it.
    """

    issuer: str
    client_id: str
    client_secret: str
    claim: str
    roles: Mapping[Role, tuple[str, ...]]


class Member(Struct, frozen=True):
    """Who logged in; `role` is None for somebody who has none here."""

    who: str
    name: str
    role: Role | None


class Provider:
    """An identity provider.

    Args:
        settings: how to reach it.
        redirect_uri: where it sends people back to.
        clock: Unix milliseconds, against which its tokens run out.
    """

    def __init__(self, settings: Settings, redirect_uri: str, clock: Clock) -> None:
        self._settings = settings
        self._redirect_uri = redirect_uri
        self._clock = clock
        self._lock = threading.Lock()
        self._metadata: dict[str, Any] = {}
        self._keys: KeySet | None = None

    def begin(self, back: str) -> tuple[str, str, Login]:
        """Begin a login: return where to send the browser, the state that comes back, and what to remember.

        Raises:
            OutputDownError: the provider does not answer.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": "openid profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = self._endpoint("authorization_endpoint")
        joint = "&" if "?" in endpoint else "?"
        return f"{endpoint}{joint}{urlencode(query)}", state, Login(verifier, nonce, back)

    def finish(self, code: str, login: Login) -> Member:
        """Exchange the code that came back for who it is.

        Raises:
            LoginRefusedError: the provider refuses, or its token does not hold.
            OutputDownError: the provider does not answer.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": login.verifier,
        }
        # RFC 6749, section 2.3.1: both parts are form-encoded before they become a user and a password.
        user, password = quote(self._settings.client_id, safe=""), quote(self._settings.client_secret, safe="")
        answer = self._ask("POST", self._endpoint("token_endpoint"), data=form, auth=(user, password))
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise LoginRefusedError("the token endpoint must answer with an id_token, did not")
        return self._member(self._claims(token, login.nonce))

    def _claims(self, token: str, nonce: str) -> Mapping[str, Any]:
        """Return what a token claims, once all of it holds (OpenID Connect Core 1.0, section 3.1.3.7)."""
        registry = jwt.JWTClaimsRegistry(
            now=self._clock() // 1000,
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self._settings.issuer},
            aud={"essential": True, "value": self._settings.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        # Keys are fetched anew once: the provider may have begun to sign with one that we have not seen.
        for fresh in (False, True):
            try:
                claims: dict[str, Any] = jwt.decode(token, self._key_set(fresh=fresh), algorithms=ALGORITHMS).claims
                registry.validate(claims)
            except (JoseError, ValueError) as error:
                if fresh:
                    raise LoginRefusedError(f"the ID token must hold, found: {error}") from error
                continue
            party = claims.get("azp", self._settings.client_id)
            if party != self._settings.client_id or not isinstance(claims["sub"], str):
                raise LoginRefusedError("the ID token must be for this desk, was for another")
            return claims
        raise AssertionError("the second turn returns or raises")

    def _member(self, claims: Mapping[str, Any]) -> Member:
        given = claims.get(self._settings.claim, [])
        groups = {given} if isinstance(given, str) else {one for one in given if isinstance(one, str)}
        held = [role for role in ROLES if groups & set(self._settings.roles.get(role, ()))]
        name = claims.get("name") or claims.get("preferred_username") or claims["sub"]
        return Member(_printable(claims["sub"]), _printable(str(name)), held[-1] if held else None)

    def _endpoint(self, name: str) -> str:
        with self._lock:
            if not self._metadata:
                found = self._ask("GET", f"{self._settings.issuer}/.well-known/openid-configuration")
                if found.get("issuer", "").rstrip("/") != self._settings.issuer:
                    raise OutputDownError(f"desk.oidc.issuer: must be {found.get('issuer')!r} as it calls itself")
                self._metadata = found
            return str(self._metadata[name])

    def _key_set(self, *, fresh: bool) -> KeySet:
        address = self._endpoint("jwks_uri")
        with self._lock:
            if self._keys is None or fresh:
                keys = self._ask("GET", address)
                self._keys = KeySet.import_key_set(keys)  # type: ignore[arg-type]  # it validates what it is given
            return self._keys

    def _ask(self, method: str, address: str, **more: Any) -> dict[str, Any]:
        try:
            with httpx2.Client(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client:
                answer = client.request(method, address, **more)
                if len(answer.content) > ANSWER_BYTES_MAX:
                    raise OutputDownError(f"{address}: must answer with less than {ANSWER_BYTES_MAX} bytes, did not")
                found = answer.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise OutputDownError(f"{address}: must answer with JSON, found: {error}") from error
        if answer.status_code >= 500 or not isinstance(found, dict):
            raise OutputDownError(f"{address}: must answer with a JSON object, found status {answer.status_code}")
        if answer.status_code != 200:
            raise LoginRefusedError(f"{address}: must answer 200, was {answer.status_code} {found.get('error')}")
        return found


def _printable(text: str) -> str:
    return "".join(one for one in text if one.isprintable())[:128] or "?"
