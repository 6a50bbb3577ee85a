"""A trace with classes: what merging, cutting and scaling keep."""

from __future__ import annotations

import numpy as np
import pytest

from tiphys.domain.trace import Trace
from tiphys.errors import InputError


def trace(arrivals: list[float], tokens: int, end_s: float = 10.0) -> Trace:
    counts = np.full(len(arrivals), tokens, np.int32)
    return Trace(np.array(arrivals), counts, counts, f"t{tokens}", end_s)


QUERIES, BULK = trace([0.0, 2.0, 5.0], 1), trace([1.0, 2.0, 9.0], 2, 12.0)
BOTH = Trace.merged({"query": QUERIES, "ingest": BULK})


def test_merged_traffic_is_in_order_and_each_request_knows_its_class() -> None:
    assert BOTH.arrival_s.tolist() == [0.0, 1.0, 2.0, 2.0, 5.0, 9.0]
    assert BOTH.class_of is not None
    # of two that come at once the class written first is first
    assert [BOTH.classes[place] for place in BOTH.class_of] == ["query", "ingest", "query", "ingest", "query", "ingest"]
    assert BOTH.input_tokens[BOTH.of_class("ingest")].tolist() == [2, 2, 2]
    assert BOTH.end_s == 12.0


def test_cutting_and_scaling_keep_the_classes() -> None:
    part = BOTH.between(1.0, 5.0)
    assert part.class_of is not None and part.class_of.tolist() == [1, 0, 1]
    assert part.classes == BOTH.classes
    doubled = BOTH.scaled(2, seed=1)
    assert int(doubled.of_class("ingest").sum()) == 6
    assert set(doubled.input_tokens[doubled.of_class("query")].tolist()) == {1}


def test_the_digest_tells_classes_apart() -> None:
    other = Trace.merged({"ingest": QUERIES, "query": BULK})
    assert len({BOTH.digest(), other.digest(), Trace.merged({"q": QUERIES}).digest(), QUERIES.digest()}) == 4


def test_traffic_of_one_class_holds_no_column_of_classes_and_shares_its_arrays() -> None:
    one = Trace.merged({"query": QUERIES})
    assert one.class_of is None and one.classes == ("query",)
    assert np.shares_memory(one.arrival_s, QUERIES.arrival_s)
    assert one.of_class("query").all()


def test_a_class_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InputError, match="no such class"):
        BOTH.of_class("bulk")
    with pytest.raises(InputError, match="no such class"):
        Trace(QUERIES.arrival_s, QUERIES.input_tokens, QUERIES.output_tokens, class_of=np.array([0, 1, 2], np.int8))
    with pytest.raises(InputError, match="has classes already"):
        Trace.merged({"a": BOTH, "b": QUERIES})
