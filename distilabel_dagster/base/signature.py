"""What makes two steps the same step: identity fields, code and data, hashed the same way everywhere.

A signature is the SHA-1 of canonical JSON, 40 hexadecimal digits. It's equal between processes, machines and Python
versions: no `repr`, no `hash()`, no address, no set order enters it.
"""

import datetime as dt
import decimal
import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, Final

from pydantic import BaseModel

from distilabel_dagster.base.code_fingerprint import fingerprint_code
from distilabel_dagster.base.serializable import (
    COLUMN_FIELDS,
    SerializableModel,
    is_dumped,
    is_secret,
    module_name,
)
from distilabel_dagster.errors import SerializationError

SIGNATURE_SCHEME: Final = 1
"""Version of the rules below. A change of them bumps it, and so gives every step a new signature."""

NON_IDENTITY_FIELDS: Final[dict[str, str]] = {
    "name": "stands in the signature by itself",
    "pipeline": "the declaration's context, not a setting of the step",
    "batch_size": "how rows are grouped on their way, not what they are",
    "input_batch_size": "how rows are grouped on their way, not what they are",
    "resources": "where and how often the step runs side by side",
    "replicas": "how often the step runs side by side",
    "use_cache": "whether outputs are reused, not what they are",
    "code_version": "stands in the signature by itself",
    "max_concurrency": "how many calls run at the same time",
    "requests_per_minute": "how fast calls are made",
    "tokens_per_minute": "how fast calls are made",
    "timeout": "how long an answer is waited for",
    "timeout_s": "how long an answer is waited for",
    "max_retries": "how often a failed call is made again",
    "input_price_usd_per_million": "what a call costs, not what it gives",
    "output_price_usd_per_million": "what a call costs, not what it gives",
    "storage_options": "how a file is reached; which file it is stands in its URL",
    "streaming": "how rows are read, not what they are",
    "keep_in_memory": "where rows are held, not what they are",
    "delay_s": "how long a stand-in model waits",
    "disable_cuda_device_placement": "which device computes",
    "gpu_memory_utilization": "how much of a device is used",
}
"""Fields that can't change the output, each with its reason. Secrets are left out by type and by name as well."""


def is_signature(text: str) -> bool:
    """Tell whether `text` is written as a signature: 40 lower-case hexadecimal digits."""
    return len(text) == 40 and all(char in "0123456789abcdef" for char in text)


def compute_signature(value: Any) -> str:
    """Hash `value` (mappings, lists, scalars) by its canonical JSON.

    Raises:
        SerializationError: something in `value` isn't data.
    """
    return hashlib.sha1(canonical_json(value).encode(), usedforsecurity=False).hexdigest()


def sign_pipeline(name: str, leaf_signatures: Iterable[str]) -> str:
    """Give the signature of a pipeline, its directory and partition key: from its name and its leaf steps' signatures."""
    return compute_signature(
        {"scheme": SIGNATURE_SCHEME, "pipeline": name, "leaf_steps": sorted(leaf_signatures)}
    )


def canonical_json(value: Any) -> str:
    """Write `value` as JSON with sorted keys; equal values give equal text on every machine.

    Raises:
        SerializationError: something in `value` isn't data.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_tag)
    except (TypeError, ValueError) as error:
        if isinstance(error, SerializationError):
            raise
        raise SerializationError(
            f"A value can't be part of a signature: {error}. Use keys of one type, and values that are data.",
        ) from error


def _tag(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return {"__bytes__": bytes(value).hex()}
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return {"__time__": value.isoformat()}
    if isinstance(value, dt.timedelta):
        return {"__seconds__": value.total_seconds()}
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return {"__text__": str(value)}
    if isinstance(value, set | frozenset):
        return {"__set__": sorted(canonical_json(item) for item in value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return {"__array__": [str(value.dtype), value.tolist()]}
    raise SerializationError(
        f"A {type(value).__name__} can't be part of a signature, since it isn't data. Use strings, numbers, bytes, "
        "dates, lists and dicts.",
    )


def describe_identity(model: SerializableModel) -> dict[str, Any]:
    """Give all that can change the output of a step or model: class, code, identity fields, data.

    A class attribute or field `code_version` stands in for the code; a method `data_fingerprint()` adds what the
    object reads from elsewhere.
    """
    cls = type(model)
    code_version = getattr(model, "code_version", None)
    fields = {
        name: dict(getattr(model, name))
        if name in COLUMN_FIELDS
        else _identity_value(getattr(model, name), f"{cls.__name__}.{name}")
        for name, info in cls.model_fields.items()
        if name not in NON_IDENTITY_FIELDS and is_dumped(name, info, getattr(model, name))
    }
    identity: dict[str, Any] = {
        "class": [module_name(cls), cls.__qualname__],
        "code": {"version": code_version} if code_version is not None else fingerprint_code(cls),
        "fields": fields,
    }
    data_fingerprint = getattr(model, "data_fingerprint", None)
    if callable(data_fingerprint):
        identity["data"] = data_fingerprint()
    return identity


def _identity_value(value: Any, where: str) -> Any:
    if isinstance(value, SerializableModel):
        return describe_identity(value)
    if isinstance(value, BaseModel):
        return _identity_value(value.model_dump(), where)
    if isinstance(value, Mapping):
        return {
            str(key): _identity_value(item, f"{where}.{key}")
            for key, item in value.items()
            if not is_secret(str(key), item)
        }
    if isinstance(value, list | tuple):
        return [_identity_value(item, f"{where}[]") for item in value]
    if isinstance(value, type):
        schema = value.model_json_schema() if issubclass(value, BaseModel) else None
        return {
            "class": [module_name(value), value.__qualname__],
            "schema": schema,
            "code": fingerprint_code(value),
        }
    if callable(value) and hasattr(value, "__qualname__"):
        return {"function": [module_name(value), value.__qualname__], "code": fingerprint_code(value)}
    return value
