"""An OpenID Connect issuer on a loopback port, with keys of its own, for tests."""

from __future__ import annotations

import json
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@cache
def key_of(kind: str, name: str) -> Any:
    """A private key, made once."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    match kind:
        case "RSA":
            return rsa.generate_private_key(65537, 2048)
        case "short":
            return rsa.generate_private_key(65537, 1024)
        case "EC":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def jwk_of(key: Any, kid: str, algorithm: str) -> dict[str, Any]:
    """The public half as an issuer publishes it."""
    import jwt

    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": kid, "use": "sig", "alg": algorithm}


class Issuer:
    """Use as a context manager; `keys` is what it publishes, and may be changed while it runs."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.described: dict[str, Any] = {}
        self.is_down = False
        self.num_asked = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.num_asked += 1
                pages = {
                    "/.well-known/openid-configuration": {
                        "issuer": issuer.url,
                        "jwks_uri": f"{issuer.url}/keys",
                        **issuer.described,
                    },
                    "/keys": {"keys": issuer.keys},
                }
                found = None if issuer.is_down else pages.get(self.path)
                body = json.dumps(found).encode()
                self.send_response(500 if found is None else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def publish(self, kind: str = "RSA", kid: str = "one", algorithm: str = "RS256") -> None:
        """Add a key."""
        self.keys.append(jwk_of(key_of(kind, kid), kid, algorithm))

    def token(
        self,
        kind: str = "RSA",
        kid: str | None = "one",
        algorithm: str = "RS256",
        headers: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A signed token; a claim of None is left out."""
        import jwt

        now = int(time.time())
        given = {"iss": self.url, "aud": "llamakit", "sub": "anna", "exp": now + 300, "iat": now, **claims}
        given = {name: value for name, value in given.items() if value is not None}
        head = {**({} if kid is None else {"kid": kid}), **(headers or {})}
        return jwt.encode(given, key_of(kind, kid or "one"), algorithm=algorithm, headers=head)

    def __enter__(self) -> Issuer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
