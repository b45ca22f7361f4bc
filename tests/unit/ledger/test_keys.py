"""Keys of calls: the same for ever and everywhere, and different where another answer is to be expected."""

import subprocess
import sys
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from distilabel_dagster.engine.calls import RequestMaker
from distilabel_dagster.engine.occurrences import BatchRequests, Occurrences
from distilabel_dagster.errors import SerializationError
from distilabel_dagster.ledger.keys import compute_call_key, digest_provider, digest_request
from distilabel_dagster.models import AsyncLLM, ChatType, GenerateOutput

PROVIDER = {"provider": "p", "base_url": "http://e/v1", "model": "m", "parameters": {"temperature": 0.7}}
MESSAGES = [{"role": "user", "content": "Grüß Gott, 世界 🐦"}]
IMAGE = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}
]
# A change of these makes everybody pay again for all that they have.
GOLDEN = "3de44e92d1c323bf2d38b831d0494f39903cc59fd6e5047adfb54254c4aaef3f"
GOLDEN_IMAGE = "26c4d74f49205c49f211ed82483046f2ba62b351cf21e40946240bc69ce7418c"
_PROGRAM = """
from distilabel_dagster.ledger.keys import compute_call_key, digest_provider, digest_request
provider = {provider!r}
for messages in ({messages!r}, {image!r}):
    print(compute_call_key(digest_request(digest_provider(provider), messages), 1, 2).hex())
"""


def key(provider: Any = None, content: Any = None, sample: int = 1, occurrence: int = 2) -> str:
    digest = digest_request(digest_provider(provider or PROVIDER), content or MESSAGES)
    return compute_call_key(digest, sample, occurrence).hex()


def test_keys_are_what_they_were() -> None:
    assert (key(), key(content=IMAGE)) == (GOLDEN, GOLDEN_IMAGE)


@pytest.mark.parametrize("seed", ["0", "1"])
def test_another_process_has_the_same(seed: str) -> None:
    program = _PROGRAM.format(provider=PROVIDER, messages=MESSAGES, image=IMAGE)
    made = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONHASHSEED": seed, "PATH": ""},
    )
    assert made.stdout.split() == [GOLDEN, GOLDEN_IMAGE]


def test_the_order_of_a_mapping_is_nothing_that_of_messages_is() -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: turned(value[name]) for name in reversed(value)}
        return [turned(each) for each in value] if isinstance(value, list) else value

    assert key(turned(PROVIDER), turned(MESSAGES)) == key()
    two = [*MESSAGES, *IMAGE]
    assert key(content=two) != key(content=two[::-1])


def test_all_that_is_asked_counts() -> None:
    others = [
        key(),
        key(sample=2),
        key(occurrence=1),
        key(sample=12, occurrence=2),
        key(sample=1, occurrence=22),
        key({**PROVIDER, "model": "n"}),
        key({**PROVIDER, "base_url": "http://e/v2"}),
        key({**PROVIDER, "parameters": {"temperature": 0.8}}),
        key({**PROVIDER, "parameters": {}}),
        key({**PROVIDER, "schema": {"type": "object"}}),
        key(content="Grüß Gott, 世界 🐦"),
        key(content=(MESSAGES, {"schema": {"type": "object"}})),
        key(content=[{**MESSAGES[0], "role": "system"}]),
        key(content=IMAGE),
        key(content=[{"role": "user", "content": "Gru\u0308ß Gott, 世界 🐦"}]),
    ]
    assert len(set(others)) == len(others)
    assert all(len(bytes.fromhex(each)) == 32 for each in others)


def test_halves_of_characters_are_no_crash() -> None:
    broken = [{"role": "user", "content": "\ud83d"}]
    assert key(content=broken) == key(content=broken) != key()


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(SerializationError):
        key(content=[{"role": "user", "content": object()}])


class Spoken(AsyncLLM):
    """A model with everything that may or may not matter."""

    api_key: SecretStr = SecretStr("sk-1")
    api_token: str = "t-1"
    timeout_s: float = 1.0
    base_url: str = "http://e"
    code_version: ClassVar[str] = "1"

    @property
    def model_name(self) -> str:
        return "spoken"

    async def agenerate(self, input: ChatType, num_generations: int = 1, **kwargs: Any) -> GenerateOutput:  # noqa: A002 (distilabel's name)
        raise AssertionError("not called")


class SpokenOneByOne(Spoken):
    one_call_per_generation = True


class SpokenAgain(Spoken):
    code_version: ClassVar[str] = "2"


def keys_of(llm: AsyncLLM, num_generations: int = 1, **kwargs: Any) -> tuple[bytes, ...]:
    maker = RequestMaker(llm, num_generations, {**llm.get_generation_kwargs(), **kwargs})
    (request,) = maker.make([MESSAGES], BatchRequests(Occurrences()))
    return request.keys


@pytest.mark.parametrize(
    "fields",
    [
        {"api_key": SecretStr("sk-2")},
        {"api_token": "t-2"},
        {"timeout_s": 2.0},
        {"max_concurrency": 1},
        {"max_retries": 1},
        {"requests_per_minute": 5},
        {"tokens_per_minute": 5},
        {"input_price_usd_per_million": 5, "output_price_usd_per_million": 6},
        {"generation_kwargs": {"api_key": "sk-3", "extra_headers": {"authorization": "Bearer x"}}},
    ],
    ids=str,
)
def test_secrets_limits_and_prices_are_not_part_of_it(fields: dict[str, Any]) -> None:
    found = keys_of(Spoken(**fields))
    if "extra_headers" in fields.get("generation_kwargs", {}):
        again = Spoken(generation_kwargs={"extra_headers": {"authorization": "Bearer other"}})
        assert found == keys_of(again)
    else:
        assert found == keys_of(Spoken())


def test_settings_options_and_code_are() -> None:
    found = [
        keys_of(Spoken()),
        keys_of(Spoken(base_url="http://f")),
        keys_of(Spoken(), temperature=0.5),
        keys_of(Spoken(generation_kwargs={"temperature": 0.7})),
        keys_of(SpokenAgain()),
        keys_of(Spoken(), 2),
    ]
    assert len(set(found)) == len(found)
    assert keys_of(Spoken(generation_kwargs={"temperature": 0.5})) == keys_of(Spoken(), temperature=0.5)


def test_a_further_generation_adds_a_key_where_each_is_a_call() -> None:
    two, three = keys_of(SpokenOneByOne(), 2), keys_of(SpokenOneByOne(), 3)
    assert three[:2] == two
    assert len(set(three)) == 3
    assert len(keys_of(Spoken(), 3)) == 1


def test_follow_ups_have_the_place_of_what_they_follow() -> None:
    maker = RequestMaker(SpokenOneByOne(), 2, {})
    first, second = maker.make([MESSAGES, MESSAGES], BatchRequests(Occurrences()))
    again = [maker.follow_up(IMAGE, sample, of) for of in (first, second) for sample in (0, 1)]
    assert len({key for request in again for key in request.keys}) == 4
    assert all(len(request.keys) == 1 for request in again)
