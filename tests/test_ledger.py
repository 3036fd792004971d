"""Costs and budgets: every price is entered, and nothing is called that could pass the limit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent.budget import Budget, BudgetError
from agent.episode import Episode
from agent.ledger import Ledger
from agent.loop import run_episode
from agent.policies import Policy
from agent.session import SessionWriter, read_session
from agent.task import StopReason, Task
from agent.toolbox import Toolbox

from .paid import DONE, EDIT, JUDGE, MASK, Script, Shop


@pytest.fixture
def shop(home: Path, photo_file: Path, tmp_path: Path) -> Shop:
    return Shop(photo_file.parent, tmp_path / "calls.txt", ("image_gen=price:0.04", "quality_eval=price:0.01,strict"))


def result_of(out: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result


def play(shop: Shop, photo: Path, folder: Path, policy: Policy, budget: Budget) -> Episode:
    async def run() -> Episode:
        async with Toolbox([shop.server()]) as toolbox:
            with SessionWriter(folder) as session:
                return await run_episode(Task(str(photo), "plate", "scratch"), policy, toolbox, session, budget=budget)

    return anyio.run(run)


def test_a_run_accounts_for_every_call_in_result_log_and_report(
    shop: Shop, photo_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert shop.run(photo_file, out) == 0
    result, calls = result_of(out), shop.calls()
    ledger = result["ledger"]
    assert {name: line["calls"] for name, line in ledger.items() if name != "policy"} == {
        name: number for name, number in calls.items() if name != "started"
    }
    assert ledger["image_gen"]["cost_usd"] == 0.12
    assert ledger["quality_eval"]["cost_usd"] == 0.03
    assert ledger["policy"] == ledger["policy"] | {"calls": result["turns"], "cost_usd": 0.0, "failed": 0}
    assert result["cost_usd"] == 0.15
    assert all(line["seconds"] > 0 for line in ledger.values())
    end = read_session(out).end
    assert end is not None
    assert end["ledger"] == ledger
    html = (out / "report.html").read_text()
    row = re.search(r'<tr><th scope="row">image_gen</th>(.*?)</tr>', html)
    assert row is not None
    assert re.findall(r"<td>(.*?)</td>", row[1])[0] == "3"
    assert "$0.1200" in row[1]


@pytest.mark.parametrize(
    ("budget", "images", "spent"),
    [("0.0999", 2, 0.09), ("0.1", 2, 0.1), ("0.14", 3, 0.14), ("0.04", 1, 0.04), ("0.0399", 0, 0), ("0", 0, 0)],
)
def test_a_budget_stops_the_run_before_the_call_that_might_pass_it(
    shop: Shop, photo_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], budget: str, images: int,
    spent: float,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    assert shop.run(photo_file, out, "--budget-usd", budget) == 1
    result, calls = result_of(out), shop.calls()
    assert result["stop_reason"] == "budget"
    assert calls["image_gen"] == len(result["images"]) == images
    assert result["cost_usd"] == pytest.approx(spent)
    assert 0.04 * calls["image_gen"] + 0.01 * calls["quality_eval"] <= float(budget) + 1e-12
    said = " ".join(capsys.readouterr().err.split())
    assert "of the budget of" in said
    assert "raise --budget-usd" in said
    assert (out / "anomaly.png").exists() == (images > 0)


def test_a_budget_that_is_just_enough_is_enough(shop: Shop, photo_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert shop.run(photo_file, out, "--budget-usd", "0.15") == 0
    assert result_of(out)["stop_reason"] == "answered"


def test_an_unknown_price_is_refused_before_anything_is_called(
    shop: Shop, photo_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.options = ("image_gen=price:unknown",)
    assert shop.run(photo_file, tmp_path / "a", "--budget-usd", "5") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the price of fake-1 (image_gen) is unknown" in said
    assert "ANOMALY_AGENT_PRICES" in said
    assert set(shop.calls()) == {"started"}
    assert shop.run(photo_file, tmp_path / "b") == 0


def test_an_image_that_passed_still_gets_its_mask_when_the_policy_can_no_longer_be_paid(
    shop: Shop, photo_file: Path, tmp_path: Path
) -> None:
    shop.options = ("image_gen=price:0.04",)
    model = Script([EDIT, JUDGE, MASK, DONE], price=0.02)
    ended = play(shop, photo_file, tmp_path / "s", model, Budget(0.09))
    assert ended.stop_reason is StopReason.BUDGET
    assert model.calls == 2
    assert ended.mask is not None
    assert ended.cost_usd == 0.08
    session = read_session(tmp_path / "s")
    assert session.of_type("tool_result")[-1]["tool"] == "mask_gen"
    assert session.complete


@pytest.mark.parametrize("options", [("mask_gen=price:0.01", "image_gen=price:0.04"), ("quality_eval=strict",)])
def test_no_mask_is_made_beyond_the_budget_or_of_an_image_that_did_not_pass(
    shop: Shop, photo_file: Path, tmp_path: Path, options: Sequence[str]
) -> None:
    shop.options = options
    limit = 0.08 if len(options) == 2 else 0.05
    ended = play(shop, photo_file, tmp_path / "s", Script([EDIT, JUDGE, MASK, DONE], price=0.02), Budget(limit))
    assert ended.stop_reason is StopReason.BUDGET
    assert ended.mask is None
    assert shop.calls()["mask_gen"] == 0


def test_a_policy_of_unknown_price_is_never_called_under_a_budget(shop: Shop, photo_file: Path, tmp_path: Path) -> None:
    model = Script([DONE], price=math.inf)
    ended = play(shop, photo_file, tmp_path / "s", model, Budget(100))
    assert ended.stop_reason is StopReason.BUDGET
    assert "the price of fake-model is unknown" in str(ended.error)
    assert model.calls == 0


def test_tenths_of_a_dollar_add_up_to_what_they_are() -> None:
    ledger, budget = Ledger(), Budget(0.3)
    for _ in range(3):
        with budget.reserve(0.1, "x") as reserved:
            reserved.settle(0.1)
        ledger.add("x", 0.0, 0.1)
    assert ledger.cost_usd == 0.3
    assert budget.spent_usd == 0.3
    with pytest.raises(BudgetError, match=r"may cost \$0.0000001, and \$0 of the budget of \$0.3 is left"):
        budget.reserve(1e-7, "x")
    budget.reserve(0.0, "x")


def test_a_call_that_was_given_up_counts_as_the_most_it_may_have_cost() -> None:
    budget = Budget(1.0)
    with pytest.raises(KeyboardInterrupt), budget.reserve(0.6, "x"):
        raise KeyboardInterrupt
    assert budget.spent_usd == 0.6
    with budget.reserve(0.4, "x") as reserved:
        reserved.settle(0.0)
    assert budget.spent_usd == 0.6
    assert budget.reserved_usd == 0


@pytest.mark.parametrize("limit", [-0.01, math.nan, math.inf])
def test_a_limit_that_is_no_amount_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="give a number from 0 on"):
        Budget(limit)


def test_a_replayed_run_needs_no_budget_and_shows_what_it_cost_when_it_was_recorded(
    shop: Shop, photo_file: Path, tmp_path: Path
) -> None:
    record = str(tmp_path / "record")
    assert shop.run(photo_file, tmp_path / "a", "--record", record) == 0
    assert shop.run(photo_file, tmp_path / "b", "--replay", record, "--budget-usd", "0") == 0
    result = result_of(tmp_path / "b")
    assert result["cost_usd"] == 0
    assert result["ledger"]["image_gen"]["recorded_cost_usd"] == 0.12
    assert "Paid when recorded" in (tmp_path / "b" / "report.html").read_text()
    assert shop.run(photo_file, tmp_path / "c", "--replay-else-live", record, "--budget-usd", "0") == 0
