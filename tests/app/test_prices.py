"""What things cost: the table that is shipped, a person's own over it, and the sums."""

from __future__ import annotations

from pathlib import Path

import pytest

from objfs.app.prices import Price, read_prices
from objfs.errors import BadSetting

OWN = """
currency = "EUR"
[[bucket]]
match = "s3://photos-*"
storage_gb_month = 0.01
put_per_1000 = 1
get_per_1000 = 0.5
egress_gb = 0
minimum_days = 30
[[bucket]]
match = "0a0b"
storage_gb_month = 7
put_per_1000 = 0
get_per_1000 = 0
egress_gb = 0
minimum_days = 0
"""


def test_local_buckets_are_free_and_others_cost_what_the_example_says(tmp_path: Path) -> None:
    table = read_prices(tmp_path)
    assert not table.of("file:///srv/a", "00").example
    assert table.of("file:///srv/a", "00").storage_month(1e12) == 0
    assert table.of("s3://photos", "00").example
    assert table.of("s3://photos", "00").storage_month(1e12) > 0


def test_a_table_of_ones_own_is_asked_first(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(OWN)
    table = read_prices(tmp_path)
    assert table.currency == "EUR"
    assert table.of("s3://photos-a?region=x", "00").storage_month(3e9) == pytest.approx(0.03)
    assert not table.of("s3://photos-a", "00").example
    assert table.of("az://other", "0a0b").storage_month(1e9) == 7
    assert table.of("az://other", "00").example


def test_the_sums() -> None:
    price = Price("*", 0.02, put_per_1000=5, get_per_1000=1, egress_gb=0.1, minimum_days=30)
    assert price.requests(puts=2000, gets=500, bytes_in=2e9) == pytest.approx(10 + 0.5 + 0.2)
    assert price.early(age_days=10, nbytes=1e9) == pytest.approx(0.02 * 20 / 30)
    assert price.early(age_days=40, nbytes=1e9) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OWN.replace("egress_gb = 0\n", "", 1), "egress_gb"),
        (OWN.replace("put_per_1000 = 1", "put_per_1000 = -1"), "put_per_1000"),
        (OWN.replace("put_per_1000 = 1", 'put_per_1000 = "1"'), "put_per_1000"),
        (OWN.replace("match =", "matches =", 1), "match"),
        (OWN.replace("currency =", "money ="), "money"),
        ("currency", "prices.toml"),
    ],
)
def test_a_mistake_in_it_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises(BadSetting, match=said):
        read_prices(tmp_path)
