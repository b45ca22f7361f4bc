"""What a call is kept under: the request as it's sent, which sample of it, and which of equal requests."""

import hashlib
from collections.abc import Mapping
from typing import Any

from distilabel_dagster.base.signature import canonical_json


def digest_provider(provider: Mapping[str, Any]) -> bytes:
    """Hash what shapes an answer apart from the question: 32 bytes, equal on every machine.

    Raises:
        SerializationError: something in it isn't data.
    """
    return hashlib.sha256(canonical_json(provider).encode("utf-8", "surrogatepass")).digest()


def digest_request(provider_digest: bytes, content: Any) -> bytes:
    """Hash a whole request: 32 bytes.

    Args:
        provider_digest: what `digest_provider` gave.
        content: the question: messages, or a text.

    Raises:
        SerializationError: something in it isn't data.
    """
    return hashlib.sha256(provider_digest + canonical_json(content).encode("utf-8", "surrogatepass")).digest()


def compute_call_key(request_digest: bytes, sample: int, occurrence: int) -> bytes:
    """Give the key of a call: 32 bytes.

    Args:
        request_digest: what `digest_request` gave.
        sample: which of `num_generations` it is.
        occurrence: how many equal requests the step made before it, in the order of its input.
    """
    return hashlib.sha256(b"%b:%d:%d" % (request_digest, sample, occurrence)).digest()
