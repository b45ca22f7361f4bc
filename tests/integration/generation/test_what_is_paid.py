"""After a change, what is paid for is what the change made new, and nothing else."""

from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from distilabel_dagster.steps.tasks import TextGeneration
from tests.integration.generation.conftest import Pay
from tests.integration.generation.pipelines import (
    OwnProcess,
    Title,
    Upper,
    build_chain,
    build_one,
    make_rows,
)
from tests.llm_server import Call, LLMServer

ROWS = 12


class Mood(BaseModel):
    mood: str


class Score(BaseModel):
    score: int


def count_by_task(calls: list[Call]) -> dict[str, int]:
    """How many calls each task made, by the first word of its prompts."""
    return dict(Counter(call.text.split()[0] for call in calls))


def test_each_row_and_task_is_paid_once(server: LLMServer, pay: Pay, cache: str) -> None:
    first = pay(build_chain(cache, server.url))
    assert count_by_task(first.calls) == {"Ask": ROWS, "Answer": ROWS}
    again = pay(build_chain(cache, server.url))
    assert again.calls == []
    assert again.rows == first.rows


def test_editing_a_prompt_pays_its_step_and_those_whose_requests_it_changed(
    server: LLMServer, pay: Pay, cache: str
) -> None:
    pay(build_chain(cache, server.url, note=True))
    # `note` stands behind both in the graph, and its signature is another one, but what it asks is what it asked.
    edited = pay(build_chain(cache, server.url, note=True, first="Ask more about {{ text }}"))
    assert count_by_task(edited.calls) == {"Ask": ROWS, "Answer": ROWS}
    edited = pay(build_chain(cache, server.url, note=True, second="Answer well: {{ question }}"))
    assert count_by_task(edited.calls) == {"Answer": ROWS}
    assert pay(build_chain(cache, server.url, note=True)).calls == []


def test_editing_a_prompt_doesnt_pay_for_answers_that_it_didnt_change(
    server: LLMServer, pay: Pay, cache: str
) -> None:
    """`ask` is asked anew, but says the same, so what is asked after it is what was asked."""
    server.configure(answer="upper")
    pay(build_chain(cache, server.url, first="Ask about {{ text }}"))
    edited = pay(build_chain(cache, server.url, first="ASK about {{ text }}"))
    assert count_by_task(edited.calls) == {"ASK": ROWS}


def test_editing_format_output_pays_nothing(server: LLMServer, pay: Pay, cache: str) -> None:
    before = pay(build_one(cache, server.url, task=Upper))
    after = pay(build_one(cache, server.url, task=Title))
    assert after.calls == []
    assert before.column("generation")[0].isupper()
    assert after.column("generation") == [text.title() for text in before.column("generation")]


def test_editing_a_parser_pays_for_what_asks_about_its_output(
    server: LLMServer, pay: Pay, cache: str
) -> None:
    pay(build_chain(cache, server.url, task=Upper))
    assert count_by_task(pay(build_chain(cache, server.url, task=Title)).calls) == {"Answer": ROWS}


@pytest.mark.parametrize("place", [60, 0, 30], ids=["at the end", "at the beginning", "in the middle"])
def test_one_more_row_pays_one_call_per_task(server: LLMServer, pay: Pay, cache: str, place: int) -> None:
    rows = make_rows(60)
    before = pay(build_chain(cache, server.url, rows=rows))
    assert len(before.calls) == 120
    more = [*rows[:place], {"id": 60, "text": "one more"}, *rows[place:]]
    after = pay(build_chain(cache, server.url, rows=more))
    assert count_by_task(after.calls) == {"Ask": 1, "Answer": 1}
    assert after.rows[:place] + after.rows[place + 1 :] == before.rows


def test_one_more_row_with_a_prompt_that_others_have_pays_one_call(
    server: LLMServer, pay: Pay, cache: str
) -> None:
    server.configure(answer="sample")
    before = pay(build_one(cache, server.url, rows=[{"id": n, "text": "the same"} for n in range(6)]))
    after = pay(build_one(cache, server.url, rows=[{"id": n, "text": "the same"} for n in range(7)]))
    assert (len(before.calls), len(after.calls)) == (6, 1)
    assert after.column("generation")[:6] == before.column("generation")
    assert len(set(after.column("generation"))) == 7


def test_reordering_rows_pays_nothing(server: LLMServer, pay: Pay, cache: str) -> None:
    rows = make_rows(40, same_every=8)
    before = pay(build_chain(cache, server.url, rows=rows))
    after = pay(build_chain(cache, server.url, rows=rows[::-1], batch_size=7))
    assert len(before.calls) == 80
    assert after.calls == []
    assert after.rows == before.rows[::-1]


def test_equal_prompts_have_samples_of_their_own_and_keep_them(
    server: LLMServer, pay: Pay, cache: str
) -> None:
    server.configure(answer="sample")
    rows = [{"id": number, "text": "the same"} for number in range(9)]
    before = pay(build_one(cache, server.url, rows=rows, task=Upper, batch_size=2))
    assert len(before.calls) == 9
    assert len(set(before.column("generation"))) == 9
    # Another parser and other batches: all rows are computed again, with the samples that they had.
    after = pay(build_one(cache, server.url, rows=rows, task=Title, batch_size=4))
    assert after.calls == []
    assert [text.upper() for text in after.column("generation")] == before.column("generation")


def test_a_third_generation_pays_one_more_call_per_row(server: LLMServer, pay: Pay, cache: str) -> None:
    server.configure(answer="sample")
    rows = make_rows(10, same_every=5)
    two = pay(build_one(cache, server.url, rows=rows, num_generations=2, group_generations=True))
    three = pay(build_one(cache, server.url, rows=rows, num_generations=3, group_generations=True))
    assert (len(two.calls), len(three.calls)) == (20, 10)
    assert [texts[:2] for texts in three.column("generation")] == two.column("generation")
    samples = [text for texts in three.column("generation") for text in texts]
    assert len(set(samples)) == 30
    fewer = pay(build_one(cache, server.url, rows=rows, num_generations=1, group_generations=True))
    assert fewer.calls == []
    assert fewer.column("generation") == [texts[:1] for texts in three.column("generation")]


CHANGES: dict[str, dict[str, Any]] = {
    "system prompt": {"system_prompt": "Be brief."},
    "model": {"llm": {"model": "other"}},
    "temperature": {"llm": {"generation_kwargs": {"temperature": 0.5}}},
    "most tokens": {"llm": {"generation_kwargs": {"max_new_tokens": 99}}},
    "extra body": {"llm": {"generation_kwargs": {"extra_body": {"top_k": 3}}}},
    "schema": {"llm": {"structured_output": {"schema": Mood}}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_answer_is_paid_for_again(
    change: str, server: LLMServer, pay: Pay, cache: str
) -> None:
    before = pay(build_one(cache, server.url))
    after = pay(build_one(cache, server.url, **CHANGES[change]))
    assert len(after.calls) == ROWS
    assert after.column("generation") != before.column("generation")
    assert pay(build_one(cache, server.url)).calls == []


def test_another_schema_is_paid_for_again_and_the_same_one_as_data_isnt(
    server: LLMServer, pay: Pay, cache: str
) -> None:
    def ask(name: str, schema: Any) -> int:
        return len(
            pay(build_one(cache, server.url, step=name, llm={"structured_output": {"schema": schema}})).calls
        )

    assert ask("ask", Mood) == ROWS
    assert ask("ask", Score) == ROWS
    assert ask("other", Mood) == 0


def test_another_endpoint_is_paid_for_again(
    server: LLMServer, other_server: LLMServer, pay: Pay, cache: str
) -> None:
    pay(build_one(cache, server.url))
    assert pay(build_one(cache, other_server.url)).calls == []
    assert other_server.count() == ROWS
    assert pay(build_one(cache, server.url)).calls == []
    assert other_server.count() == ROWS


@pytest.mark.parametrize(
    "change",
    [{"max_concurrency": 3}, {"timeout_s": 9}, {"max_retries": 0}, {"requests_per_minute": 60_000}],
    ids=lambda change: next(iter(change)),
)
def test_how_calls_are_made_changes_nothing(
    change: dict[str, Any], server: LLMServer, pay: Pay, cache: str
) -> None:
    before = pay(build_one(cache, server.url, task=Upper))
    after = pay(build_one(cache, server.url, task=Title, llm=change))
    assert after.calls == []
    assert [text.upper() for text in after.column("generation")] == before.column("generation")


def test_a_task_with_a_process_of_its_own_has_the_ledger_under_it(
    server: LLMServer, pay: Pay, cache: str
) -> None:
    before = pay(build_one(cache, server.url, task=OwnProcess, step="ask"))
    assert len(before.calls) == 2 * ROWS
    after = pay(build_one(cache, server.url, task=OwnProcess, step="renamed"))
    assert after.calls == []
    assert after.column("second") == before.column("second")


def test_batch_sizes_change_nothing(server: LLMServer, pay: Pay, cache: str) -> None:
    rows = make_rows(30, same_every=3)
    before = pay(build_one(cache, server.url, rows=rows, task=Upper, batch_size=30))
    after = pay(build_one(cache, server.url, rows=rows, task=Title, batch_size=1))
    assert (len(before.calls), after.calls) == (30, [])


def test_a_response_is_kept_as_it_came(server: LLMServer, pay: Pay, cache: str) -> None:
    """Metadata of a row made of a kept response says what it said when it was fresh."""
    before = pay(build_one(cache, server.url, step="ask"))
    assert len(before.calls) == ROWS
    assert None not in before.column("generation")
    after = pay(build_one(cache, server.url, step="ask", task=TextGeneration, code_version="2"))
    assert after.calls == []
    assert after.rows == before.rows
