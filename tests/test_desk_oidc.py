"""Login by OpenID Connect, against a small issuer that also knows how to cheat."""

import base64
import contextlib
import hashlib
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from desk_kit import NOW_MS, Page, alert, serving, told
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from sinks.desk.app import desk_application
from sinks.desk.oidc import Settings
from sinks.desk.people import People

DESK = "https://desk.example"


class Issuer:
    """An identity provider that lets everybody in as whoever `person` says; `cheat` changes its claims."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "first"}, private=True)
        self.person = {"sub": "ann", "name": "Ann", "groups": ["callers"]}
        self.cheat: dict[str, object] = {}
        self.signer = self.key
        self.codes: dict[str, dict[str, str]] = {}
        self.base = ""
        self.application = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.metadata),
                Route("/authorize", self.authorize),
                Route("/token", self.token, methods=["POST"]),
                Route("/keys", self.keys),
            ]
        )

    async def metadata(self, _):
        ends = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return JSONResponse({"issuer": self.base, **{name: f"{self.base}/{path}" for name, path in ends.items()}})

    async def keys(self, _):
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})

    async def authorize(self, request):
        asked = dict(request.query_params)
        code = f"code{len(self.codes)}"
        self.codes[code] = asked
        return RedirectResponse(f"{asked['redirect_uri']}?code={code}&state={asked['state']}", 303)

    async def token(self, request):
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        asked = self.codes.pop(form["code"], None)
        basic = base64.b64encode(b"desk:s%2Fcret").decode()
        proof = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        is_client = request.headers["authorization"] == f"Basic {basic}"
        if (
            asked is None
            or not is_client
            or asked["code_challenge"] != proof
            or asked["code_challenge_method"] != "S256"
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = NOW_MS // 1000
        claims = {"iss": self.base, "aud": "desk", "iat": now, "exp": now + 300, "nonce": asked["nonce"], **self.person}
        token = jwt.encode({"alg": "RS256", "kid": self.signer.kid}, {**claims, **self.cheat}, self.signer)
        return JSONResponse({"id_token": token, "access_token": "x", "token_type": "Bearer"})


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    with serving(issuer.application) as base:
        issuer.base = base
        yield issuer


@pytest.fixture
def house(store, issuer) -> Iterator[SimpleNamespace]:
    roles = {"csr": ("callers",), "supervisor": ("leads",), "admin": ("it",)}
    settings = Settings(issuer.base, "desk", "s/cret", "groups", roles)
    application = desk_application(store, lambda _: None, public_url=DESK, oidc=settings)
    with (
        TestClient(application, base_url=DESK, follow_redirects=False) as client,
        httpx2.Client(trust_env=False, follow_redirects=False) as web,
    ):
        yield SimpleNamespace(client=client, web=web, store=store, people=People(store))


def go(house, back="/cases/al_1"):
    """Log in as a browser would; return the answer to the callback."""
    begun = house.client.get("/login", params={"back": back})
    assert begun.status_code == 303
    sent = house.web.get(begun.headers["location"])
    parts = urlsplit(sent.headers["location"])
    assert f"{parts.scheme}://{parts.netloc}" == DESK
    return house.client.get(f"{parts.path}?{parts.query}")


def test_a_login_leads_back_to_where_it_began(house):
    house.store.put([told(alert())])
    wanted = house.client.get("/cases/al_1")
    assert wanted.headers["location"] == "/login?back=%2Fcases%2Fal_1"
    back = go(house)
    assert (back.status_code, back.headers["location"]) == (303, "/cases/al_1")
    cookie = next(one for one in back.headers.get_list("set-cookie") if one.startswith("__Host-stayline="))
    assert all(word in cookie.lower() for word in ("httponly", "secure", "path=/", "samesite=lax"))
    assert "domain" not in cookie.lower()
    page = Page(house.client.get("/cases/al_1").text)
    assert "Ann" in page.text
    form = {**page.values(), "what": "take"}
    assert house.client.post("/cases/al_1/actions", data=form).status_code == 303
    assert house.store.case("al_1").card.owner == "ann"
    assert [one.what for one in house.people.audit(99, 9)] == ["login as csr"]


def test_a_log_out_ends_the_session(house):
    go(house)
    token = Page(house.client.get("/").text).values()["token"]
    cookie = house.client.cookies["__Host-stayline"]
    assert house.client.post("/logout", data={"token": "x"}).status_code == 403
    assert house.client.post("/logout", data={"token": token}).status_code == 303
    assert house.people.session(cookie) is None


@pytest.mark.parametrize(
    ("groups", "role"), [(["callers"], "csr"), (["callers", "leads"], "supervisor"), ("it", "admin"), (["other"], None)]
)
def test_the_highest_role_that_the_groups_give_counts(house, issuer, groups, role):
    issuer.person["groups"] = groups
    answer = go(house)
    if role is None:
        assert answer.status_code == 403
        assert "have no role" in answer.text
        assert house.client.get("/").status_code == 303
    else:
        assert ("audit" in house.client.get("/").text) == (role != "csr")
        assert house.people.audit(99, 9)[0].what == f"login as {role}"


@pytest.mark.parametrize(
    "cheat",
    [
        {"nonce": "another"},
        {"aud": "another"},
        {"iss": "https://evil.example"},
        {"exp": NOW_MS // 1000 - 100},
        {"azp": "another"},
        {"sub": None},
    ],
    ids=str,
)
def test_a_token_that_does_not_hold_is_refused(house, issuer, cheat):
    issuer.cheat = cheat
    answer = go(house)
    assert answer.status_code == 403
    assert "did not succeed" in answer.text
    assert house.client.get("/api/v1/alerts").status_code == 401


def test_a_token_that_somebody_else_signed_is_refused(house, issuer):
    issuer.signer = RSAKey.generate_key(2048, {"kid": "first"}, private=True)
    assert go(house).status_code == 403


def test_a_key_that_the_issuer_changed_is_fetched(house, issuer):
    assert go(house).status_code == 303
    issuer.key = issuer.signer = RSAKey.generate_key(2048, {"kid": "second"}, private=True)
    issuer.person["sub"] = "bob"
    assert go(house).status_code == 303


def test_an_answer_is_taken_once_and_by_the_browser_that_asked(house):
    begun = house.client.get("/login")
    sent = urlsplit(house.web.get(begun.headers["location"]).headers["location"])
    callback = f"{sent.path}?{sent.query}"
    kept = dict(house.client.cookies)
    house.client.cookies.clear()
    assert house.client.get(callback).status_code == 403
    house.client.cookies.update(kept)
    assert house.client.get(callback).status_code == 303
    house.client.cookies.update(kept)
    assert house.client.get(callback).status_code == 403


@pytest.mark.parametrize("query", ["", "code=x", "state=x", "error=access_denied&state=x", "code=x&state=%C3%A9"])
def test_an_answer_to_no_question_is_refused(house, query):
    assert house.client.get(f"/login/callback?{query}").status_code == 403


def test_a_login_that_took_too_long_is_begun_anew(house, clock):
    begun = house.client.get("/login")
    sent = urlsplit(house.web.get(begun.headers["location"]).headers["location"])
    clock.now_ms += 11 * 60_000
    assert house.client.get(f"{sent.path}?{sent.query}").status_code == 403


def test_nobody_is_sent_to_another_site_by_a_login(house):
    assert go(house, back="//evil.example").headers["location"] == "/"


def test_an_issuer_that_is_away_or_another_is_said(store):
    async def lies(_) -> Response:
        return JSONResponse({"issuer": "https://another.example"})

    liar = Starlette(routes=[Route("/.well-known/openid-configuration", lies)])
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(serving(liar))
        for issuer in (base, "http://127.0.0.1:9"):
            settings = Settings(issuer, "desk", "s", "groups", {})
            application = desk_application(store, lambda _: None, public_url=DESK, oidc=settings)
            client = stack.enter_context(TestClient(application, base_url=DESK, follow_redirects=False))
            answer = client.get("/login")
            assert answer.status_code == 502
            assert "does not answer" in answer.text
