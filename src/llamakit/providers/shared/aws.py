"""Signing requests to AWS with Signature Version 4, as its documentation describes it; needs no SDK.

Takes a key pair as it stands. Where one comes from beyond variables (profiles, roles, metadata services) is not
looked for: such sources are other hosts and files, and the bearer key of the same service needs none of them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from llamakit.core.config import Secret

Sign = Callable[[str, str, bytes, Mapping[str, str]], Mapping[str, str]]
"""Method, URL, body and headers -> headers that sign them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signer:
    """Signs requests to one service of one region."""

    region: str
    service: str
    key_id: str
    secret: Secret
    session: Secret | None = None
    """Token of temporary credentials."""
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __call__(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The headers to add: date, token and signature over host, content type and these."""
        parts = urlsplit(url)
        moment = self.clock().strftime("%Y%m%dT%H%M%SZ")
        signed = {"host": parts.netloc, "x-amz-date": moment}
        if "content-type" in headers:
            signed["content-type"] = headers["content-type"]
        if self.session is not None:
            signed["x-amz-security-token"] = self.session.reveal()
        names = ";".join(sorted(signed))
        request = "\n".join(
            (
                method,
                quote(parts.path or "/", safe="/-_.~"),
                "&".join(sorted(parts.query.split("&"))) if parts.query else "",
                *(f"{name}:{signed[name].strip()}" for name in sorted(signed)),
                "",
                names,
                hashlib.sha256(body).hexdigest(),
            )
        )
        scope = f"{moment[:8]}/{self.region}/{self.service}/aws4_request"
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = hmac.new(
            self._key(moment[:8]), f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}".encode(), hashlib.sha256
        ).hexdigest()
        made = {name: value for name, value in signed.items() if name.startswith("x-amz-")}
        credential = f"Credential={self.key_id}/{scope}"
        made["authorization"] = f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}"
        return made

    def _key(self, day: str) -> bytes:
        key = f"AWS4{self.secret.reveal()}".encode()
        for word in (day, self.region, self.service, "aws4_request"):
            key = hmac.new(key, word.encode(), hashlib.sha256).digest()
        return key
