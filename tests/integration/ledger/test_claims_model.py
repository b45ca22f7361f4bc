"""Claims against a simple model: whoever asks, dies, sleeps or stores, in any order."""

import tempfile
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import func, select, update

from distilabel_dagster.ledger.calls import Paid, StepInRun, StoredResponse
from distilabel_dagster.ledger.database import exclusive_transaction, read_transaction
from distilabel_dagster.ledger.leases import HeldLeases
from distilabel_dagster.ledger.responses import ResponseLedger
from distilabel_dagster.ledger.schema import LEASES_TABLE, RESPONSES_TABLE
from distilabel_dagster.ledger.usage import Usage, read_usage

STEP = StepInRun("pipeline_1", "generate_1f", "generate", "gpt", "")
NO_PROCESS = 2**22 + 1
EXPIRE_AFTER_S = 60.0

places = st.integers(0, 2)
numbers = st.sets(st.integers(0, 5), min_size=1)


def key_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


class Claims(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.now = 1_700_000_000.0
        self.left_behind: list[HeldLeases] = []
        self.ledgers = [self.open() for _ in range(3)]
        self.names = [f"{place}" for place in range(3)]  # of owners; a new one after each death
        self.stored: dict[int, str] = {}
        self.claims: dict[int, str] = {}
        self.heard_at = dict.fromkeys(self.names, self.now)
        self.counted = Usage()
        self.rounds = 0

    def open(self) -> ResponseLedger:
        # Its own signs of life would come by the real clock.
        ledger = ResponseLedger(
            f"{self.directory.name}/ledger.sqlite",
            expire_after_s=EXPIRE_AFTER_S,
            heartbeat_every_s=EXPIRE_AFTER_S - 1,
            clock=lambda: self.now,
            uptime=lambda: self.now - 1_600_000_000.0,
        )
        ledger.open_claims()
        return ledger

    def become_another(self, place: int) -> None:
        self.rounds += 1
        del self.heard_at[self.names[place]]
        self.names[place] = f"{place} after {self.rounds}"
        self.heard_at[self.names[place]] = self.now

    def is_taken(self, number: int, name: str) -> bool:
        holder = self.claims.get(number)
        if holder is None or holder == name or holder not in self.heard_at:
            return False
        return self.now - self.heard_at[holder] <= EXPIRE_AFTER_S

    @rule(place=places, wanted=numbers)
    def begin(self, place: int, wanted: set[int]) -> None:
        begun = self.ledgers[place].begin({STEP: [key_of(number) for number in wanted]})
        name = self.names[place]
        self.heard_at[name] = self.now
        found = wanted & self.stored.keys()
        elsewhere = {number for number in wanted - found if self.is_taken(number, name)}
        claimed = wanted - found - elsewhere
        assert {key: each.response["text"] for key, each in begun.found.items()} == {
            key_of(number): self.stored[number] for number in found
        }
        assert begun.claimed == set(map(key_of, claimed))
        assert begun.elsewhere == set(map(key_of, elsewhere))
        self.claims.update(dict.fromkeys(claimed, name))
        self.counted += Usage(calls_reused=len(found))

    @rule(place=places, paid=numbers)
    def store(self, place: int, paid: set[int]) -> None:
        self.rounds += 1
        text = f"round {self.rounds}"
        self.ledgers[place].store(
            [
                Paid(
                    StoredResponse(key_of(n), {"text": text}, "gpt", "", None, 2, 1, 0.5, 0.1, 1, 0.0, "run"),
                    STEP,
                )
                for n in paid
            ]
        )
        for number in paid:
            self.stored.setdefault(number, text)
            self.claims.pop(number, None)
        amount = len(paid)
        self.counted += Usage(
            calls=amount, input_tokens=2 * amount, output_tokens=amount, cost_usd=0.5 * amount
        )

    @rule(place=places, given_back=numbers)
    def release(self, place: int, given_back: set[int]) -> None:
        self.ledgers[place].release(map(key_of, given_back))
        for number in given_back:
            if self.claims.get(number) == self.names[place]:
                del self.claims[number]

    @rule(place=places)
    def close_and_open(self, place: int) -> None:
        self.ledgers[place].close()
        self.ledgers[place].open_claims()
        self.claims = {n: name for n, name in self.claims.items() if name != self.names[place]}
        self.become_another(place)

    @rule(place=places)
    def die(self, place: int) -> None:
        held = self.ledgers[place]._held
        assert held is not None
        with exclusive_transaction(self.ledgers[place].engine) as connection:
            connection.execute(
                update(LEASES_TABLE).where(LEASES_TABLE.c.key == held.keys[0]).values(pid=NO_PROCESS)
            )
        self.left_behind.append(held)
        self.ledgers[place].engine.dispose()
        self.ledgers[place] = self.open()
        self.become_another(place)

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0]))
    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def counters_and_responses_agree(self) -> None:
        engine = self.ledgers[0].engine
        with read_transaction(engine) as connection:
            stored: Any = connection.execute(select(func.count()).select_from(RESPONSES_TABLE)).scalar_one()
        assert stored == len(self.stored)
        assert read_usage(engine).get(STEP, Usage()) == self.counted

    def teardown(self) -> None:
        for held in self.left_behind:
            held.release()
        for ledger in self.ledgers:
            ledger.close()
        self.directory.cleanup()


TestClaims = Claims.TestCase
TestClaims.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
