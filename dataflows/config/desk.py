"""`[desk]`: the representatives' pages, their database, and who may see them."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from dataflows.config.kinds import Address, Label, Listen, SecretHolder, Section
from sinks.desk.guard import is_loopback


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not safe or not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must be an https:// address (http:// to loopback only) without user, query or fragment")
    return text.rstrip("/")


def _origin(text: str) -> str:
    if urlsplit(text).path not in {"", "/"}:
        raise ValueError("must be an https:// address without a path")
    return _web_address(text)


def _without_password(text: str) -> str:
    if "password" in text.lower() or (urlsplit(text).password is not None):
        raise ValueError("must hold no password: it belongs into PGPASSWORD or a password file")
    return text


WebAddress = Annotated[str, AfterValidator(_web_address)]
Origin = Annotated[str, AfterValidator(_origin)]
PostgresUrl = Annotated[str, AfterValidator(_without_password)]


class Roles(Section):
    """`[desk.oidc.roles]`: which values of the claim give which role; the highest one counts."""

    csr: tuple[Label, ...] = ()
    supervisor: tuple[Label, ...] = ()
    admin: tuple[Label, ...] = ()


class Oidc(SecretHolder):
    """`[desk.oidc]`: the identity provider that people log in with (OpenID Connect, code flow with PKCE)."""

    issuer: WebAddress
    client_id: Label
    claim: Label = "groups"
    roles: Roles = Roles()


class Resolver(SecretHolder):
    """`[desk.resolver]`: answers `POST {"customer_id": ...}` with `{"identity": ...}`."""

    url: WebAddress


class Desk(Section):
    """`[desk]`: the representatives' pages; without the table there are none."""

    listen: Listen = Address("127.0.0.1", 8080)
    public_url: Origin | None = None
    postgres: PostgresUrl | None = None
    oidc: Annotated[Oidc | None, Field(validate_default=True)] = None
    resolver: Resolver | None = None

    @field_validator("oidc")
    @classmethod
    def _login_fits(cls, value: Oidc | None, info: ValidationInfo) -> Oidc | None:
        listen, public_url = info.data.get("listen"), info.data.get("public_url")
        if value is None and listen is not None and not is_loopback(listen.host):
            raise ValueError("must be given where desk.listen is not a loopback address: nobody would have to log in")
        if value is None and public_url is not None:
            raise ValueError("must be given where desk.public_url is")
        if value is not None and public_url is None and "public_url" in info.data:
            raise ValueError("must stand beside desk.public_url, to which the provider sends people back")
        return value
