from distilabel_dagster.ledger.calls import FailedAttempt, Paid, StepInRun, StoredResponse
from distilabel_dagster.ledger.usage import Usage, add_up, usage_of

STEP = StepInRun("pipeline_1", "generate_1f", "generate", "gpt", "")
OTHER = STEP._replace(step="judge")


def paid(step: StepInRun, tokens: int | None, cost_usd: float | None) -> Paid:
    return Paid(StoredResponse(b"", {}, "gpt", "", None, tokens, 1, cost_usd, 0.1, 1, 0.0, "run"), step)


def test_usage_is_added_up_for_each_step() -> None:
    failed = FailedAttempt(b"", OTHER, "timeout", None, "", "run", 0.0)
    assert usage_of([paid(STEP, 5, 0.5), paid(OTHER, 7, None), paid(STEP, None, 0.25)], [failed, failed]) == {
        STEP: Usage(calls=2, input_tokens=5, output_tokens=2, calls_without_tokens=1, cost_usd=0.75),
        OTHER: Usage(
            calls=1, input_tokens=7, output_tokens=1, calls_without_price=1, failures={"timeout": 2}
        ),
    }
    assert usage_of([]) == {}


def test_costs_of_many_cheap_calls_are_added_without_drift() -> None:
    assert usage_of([paid(STEP, 1, 0.1)] * 10)[STEP].cost_usd == 1.0


def test_a_total_has_everything() -> None:
    first = Usage(1, 2, 3, 4, 5, 0.5, 6, {"timeout": 1})
    second = Usage(10, 20, 30, 40, 50, 0.25, 60, {"timeout": 1, "rate_limit": 2})
    assert first + second == Usage(11, 22, 33, 44, 55, 0.75, 66, {"timeout": 2, "rate_limit": 2})
    assert add_up([first, second]) == first + second
    assert add_up([]) == Usage()
    assert first.failures == {"timeout": 1}
