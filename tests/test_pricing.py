"""Prices: the shipped table, a file of the user's own, and files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from pricing import Price, PriceError, price_of


def own(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    return {"ANOMALY_AGENT_PRICES": str(path)}


def test_tokens_images_and_calls_add_up() -> None:
    price = Price(input_per_million=2.0, output_per_million=10.0, per_image=0.05, per_call=0.01)
    assert price.of(500_000, 100_000, 2) == pytest.approx(1.0 + 1.0 + 0.1 + 0.01)


@pytest.mark.parametrize("model", ["gemini-3.1-flash-image", "gpt-image-1.5", "grok-imagine-image"])
def test_the_default_editors_have_a_price(model: str) -> None:
    price = price_of(model, {})
    assert price is not None
    assert 0.01 < price.of(images=1) < 1


def test_an_unknown_model_has_none() -> None:
    assert price_of("painter-9000", {}) is None


def test_ones_own_prices_win_and_the_table_stays_for_the_rest(tmp_path: Path) -> None:
    environ = own(tmp_path, '["gpt-image-1.5"]\nper_image = 0.5\n["painter-9000"]\nper_call = 2\n')
    assert price_of("gpt-image-1.5", environ) == Price(per_image=0.5)
    assert price_of("painter-9000", environ) == Price(per_call=2.0)
    assert price_of("gemini-3.1-flash-image", environ) == price_of("gemini-3.1-flash-image", {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("per_image = = 1", "cannot be used"),
        ('["m"]\nper_pixel = 1', "per_image"),
        ('["m"]\nper_image = "cheap"', "must be a number"),
        ('["m"]\nper_image = -1', "must be a number"),
        ('["m"]\nper_image = nan', "must be a number"),
        ('["m"]\nper_image = true', "must be a number"),
        ('m = 3', "nothing else"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(PriceError, match=says):
        price_of("m", own(tmp_path, text))


def test_a_missing_file_says_why(tmp_path: Path) -> None:
    with pytest.raises(PriceError, match="mend it or unset it"):
        price_of("m", {"ANOMALY_AGENT_PRICES": str(tmp_path / "nowhere.toml")})
