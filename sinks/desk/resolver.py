"""Who a customer is, asked of whoever keeps that: over HTTP, one customer at a time, kept nowhere."""

import httpx2

from sinks.outputs import OutputDownError

TIMEOUT_S = 10.0

IDENTITY_CHARACTERS_MAX = 512


class HttpResolver:
    """Posts `{"customer_id": ...}` and is answered `{"identity": ...}`, or 404 for one not known.

    Args:
        url: where to.
        key: shown as a bearer token.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key

    def identity(self, customer_id: str) -> str | None:
        """Return who stands behind a token, None if that is not known.

        Raises:
            OutputDownError: the resolver does not answer, or with something else.
        """
        headers = {"authorization": f"Bearer {self._key}"}
        try:
            with httpx2.Client(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client:
                answer = client.post(self._url, json={"customer_id": customer_id}, headers=headers)
            if answer.status_code == 404:
                return None
            found = answer.json()["identity"] if answer.status_code == 200 else None
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            raise OutputDownError(
                f"desk.resolver: must answer with an identity, found {type(error).__name__}"
            ) from None
        if not isinstance(found, str):
            raise OutputDownError(f"desk.resolver: must answer with an identity, was status {answer.status_code}")
        return found[:IDENTITY_CHARACTERS_MAX]
