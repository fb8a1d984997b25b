"""p-values in print: a floor is a bound, and nothing is 0.000."""

import pytest

from htsr.audit.columns import BY_NAME, COLUMNS
from htsr.bulk.nulls import SMALLEST_P
from htsr.p_values import BULK_P, GOODNESS_P, NULL_P, P_VALUES, VUONG_P


@pytest.mark.parametrize(
    ("kind", "p", "text"),
    [
        (NULL_P, 3e-6, "p < 3e-6"),
        (NULL_P, 3.2e-5, "p = 3e-5"),
        (NULL_P, 1.0, "p = 1.00"),
        (BULK_P, 1e-6, "p < 1e-6"),
        (BULK_P, 0.0123, "p = 0.012"),
        (GOODNESS_P, 0.0, "p < 0.05"),
        (GOODNESS_P, 0.05, "p = 0.050"),
        (VUONG_P, 0.0, "p < 1e-300"),
        (VUONG_P, 4e-12, "p = 4e-12"),
    ],
)
def test_in_a_sentence(kind, p, text):
    assert kind.equals(p) == text


def test_floors_are_those_of_the_nulls():
    assert BULK_P.floor == SMALLEST_P
    assert NULL_P.floor == 3 * SMALLEST_P


def test_every_p_value_of_a_table_is_printed_as_one():
    for column in COLUMNS:
        is_p = column.name.endswith("p_value") or column.name == "goodness_of_fit"
        assert (column.p_value is not None) == is_p, column.name
        if is_p:
            assert not set(column.text(1e-9)) <= set("0.")


def test_columns_are_found_by_their_names():
    for column in BY_NAME.values():
        assert P_VALUES.get(column.name.removesuffix("_of_delta")) == column.p_value, column.name
