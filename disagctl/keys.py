"""Keys and tokens: the head's CURVE pair, one-time enrolment tokens, bearer tokens. Only hashes of tokens are kept."""

import hashlib
import hmac
import secrets
from pathlib import Path

import msgspec
import zmq

from disagctl.state import write_private


class KeyPair(msgspec.Struct, frozen=True):
    """A CURVE pair in z85."""

    public: str
    secret: str


def head_keys(path: Path) -> KeyPair:
    """The head's pair: read, or made and written with mode 0600."""
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=KeyPair)
    public, secret = zmq.curve_keypair()
    pair = KeyPair(public.decode(), secret.decode())
    write_private(path, msgspec.json.encode(pair))
    return pair


def relay_key(pair: KeyPair) -> bytes:
    """What relayed tensors are encrypted with: made from the head's secret, so that the next head has the same one."""
    return hmac.digest(pair.secret.encode(), b"disagctl relay key 1", "sha256")


def new_token() -> str:
    """256 random bits, safe in a URL and a header."""
    return secrets.token_urlsafe(32)


def hashed(token: str) -> str:
    """What is kept of a token. It is random, so a plain hash needs no salt."""
    return hashlib.sha256(token.encode()).hexdigest()


def same(left: str, right: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(left, right)
