"""Trace files: what is read, and what is said of a file that is no trace."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.real_traces import trace_file
from tiphys.errors import InputError
from tiphys.traffic import open_trace
from tiphys.traffic.csv import read_csv
from tiphys.traffic.jsonl import read_jsonl

HEADER = "arrival_s,input_tokens,output_tokens\n"
GOOD = HEADER + "0.0,100,10\n0.5,200,20\n2.25,300,1\n"


def written(folder: Path, content: str | bytes, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fault(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        open_trace(path)
    assert caught.value.where == str(path)
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz", "trace"])
def test_gzip_is_known_by_its_content_not_its_name(tmp_path: Path, name: str) -> None:
    packed = open_trace(written(tmp_path, gzip.compress(GOOD.encode()), name)).trace
    plain = open_trace(written(tmp_path, GOOD, "plain.csv")).trace
    assert packed.digest() == plain.digest()


def test_a_csv_gives_its_numbers_and_ends_with_its_last_request(tmp_path: Path) -> None:
    trace = read_csv(written(tmp_path, GOOD, "morning.csv"))
    assert trace.arrival_s.tolist() == [0.0, 0.5, 2.25]
    assert trace.input_tokens.tolist() == [100, 200, 300]
    assert trace.output_tokens.tolist() == [10, 20, 1]
    assert (trace.name, trace.end_s) == ("morning", 2.25)


@pytest.mark.parametrize(
    "content",
    [
        GOOD.replace("\n", "\r\n"),
        "\ufeff" + GOOD,
        GOOD.rstrip("\n"),
        GOOD.replace("0.5,", "\n0.5,"),
        GOOD.replace(",200", ", 200"),
        GOOD.replace("100", "100.0"),
        "output_tokens,arrival_s,input_tokens\n10,0.0,100\n20,0.5,200\n1,2.25,300\n",
    ],
    ids=["crlf", "byte order mark", "no last newline", "empty line", "spaces", "whole floats", "other order"],
)
def test_forms_that_mean_the_same_read_the_same(tmp_path: Path, content: str) -> None:
    assert read_csv(written(tmp_path, content)).digest() == read_csv(written(tmp_path, GOOD, "good.csv")).digest()


FAULTS = {
    "nothing": ("", "empty", ""),
    "header only": (HEADER, "no request", ""),
    "header without newline": (HEADER.strip(), "no request", ""),
    "misspelt column": (GOOD.replace("input_tokens", "input_token"), "did you mean 'input_tokens'", "line 1"),
    "absent column": ("arrival_s,input_tokens\n0,1\n", "'output_tokens' is missing", "line 1"),
    "column twice": ("arrival_s,input_tokens,output_tokens,arrival_s\n0,1,1,0\n", "stands twice", "line 1"),
    "no header": ("0.0,100,10\n0.5,200,20\n", "unknown column '0.0'", "line 1"),
    "unsorted": (GOOD + "2.0,1,1\n", "not sorted", "line 5.arrival_s"),
    "a word": (GOOD.replace("200", "many"), "not a number", "line 3.input_tokens"),
    "an empty field": (GOOD.replace("200", ""), "not a number", "line 3.input_tokens"),
    "nan": (GOOD.replace("0.5", "nan"), "finite", "line 3.arrival_s"),
    "infinite": (GOOD.replace("2.25", "inf"), "finite", "line 4.arrival_s"),
    "negative time": (GOOD.replace("0.0", "-0.1"), "not negative", "line 2.arrival_s"),
    "zero tokens": (GOOD.replace(",10\n", ",0\n"), "must have tokens", "line 2.output_tokens"),
    "negative tokens": (GOOD.replace("300", "-3"), "must have tokens", "line 4.input_tokens"),
    "half a token": (GOOD.replace("300", "3.5"), "whole number", "line 4.input_tokens"),
    "nan tokens": (GOOD.replace("300", "nan"), "whole number", "line 4.input_tokens"),
    "too many tokens": (GOOD.replace("300", "3000000000"), "must have tokens", "line 4.input_tokens"),
    "a row cut short": (GOOD + "3.0,5\n", "number of fields", "line 5"),
    "rows too long": (HEADER + "0,1,1,1\n1,1,1,1\n", "number of fields", "line 2"),
    "one row too long": (GOOD + "3,1,1,1\n", "number of fields", "line 5"),
    "empty line before": (GOOD.replace("0.5,", "\n0.5,") + "2.0,1,1\n", "not sorted", "line 6.arrival_s"),
}


@pytest.mark.parametrize(("content", "says", "at"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_file_that_is_no_trace_is_named_with_its_line(
    tmp_path: Path, content: str, says: str, at: str, packed: bool
) -> None:
    data = gzip.compress(content.encode()) if packed else content.encode()
    error = fault(written(tmp_path, data))
    assert says in error.message
    assert error.key == at


def test_a_file_that_cannot_be_unpacked_says_why(tmp_path: Path) -> None:
    packed = gzip.compress(GOOD.encode() * 50)
    assert "truncated" in fault(written(tmp_path, packed[:-20])).message
    assert "truncated" in fault(written(tmp_path, packed[:5])).message
    assert "damaged" in fault(written(tmp_path, packed[:-8] + b"12345678")).message
    assert "the content is not" in fault(written(tmp_path, GOOD, "plain.csv.gz")).message
    assert "no such file" in fault(tmp_path / "absent.csv").message
    assert "cannot be read" in fault(tmp_path).message
    assert "UTF-8" in fault(written(tmp_path, b"\xff\xfe" + GOOD.encode("utf-16-le"))).message


def rows(*records: dict[str, object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


FIRST = {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}
SECOND = {"timestamp": 2500, "input_length": 7, "output_length": 1, "hash_ids": [0]}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_json_lines_are_known_by_their_content_and_say_that_hashes_are_ignored(tmp_path: Path, packed: bool) -> None:
    data = rows(FIRST, SECOND).encode()
    loaded = open_trace(written(tmp_path, gzip.compress(data) if packed else data, "mooncake.csv"))
    assert loaded.trace.arrival_s.tolist() == [0.0, 2.5]
    assert loaded.trace.input_tokens.tolist() == [6758, 7]
    assert loaded.trace.output_tokens.tolist() == [500, 1]
    assert [notice.split()[0] for notice in loaded.notices] == ["hash_ids"]


def test_json_lines_without_hashes_need_no_notice_and_other_members_are_named(tmp_path: Path) -> None:
    plain = {key: value for key, value in SECOND.items() if key != "hash_ids"}
    assert open_trace(written(tmp_path, rows(plain))).notices == ()
    assert open_trace(written(tmp_path, rows(plain | {"session_id": "a"}))).notices == ("members ignored: session_id",)


JSON_FAULTS = {
    "not json": (rows(FIRST) + "{timestamp: 5}\n", "not JSON", "line 2"),
    "a list": ("[1, 2]\n", "one JSON object a line", "line 1"),
    "misspelt": (rows({"timestamp": 0, "input_len": 5, "output_length": 5}), "'input_length'", "line 1"),
    "missing": (rows({"input_length": 5, "output_length": 5}), "'timestamp' is missing", "line 1"),
    "a word": (rows(FIRST | {"input_length": "5"}), "not a number", "line 1.input_length"),
    "true": (rows(FIRST | {"input_length": True}), "not a number", "line 1.input_length"),
    "nan": (rows(FIRST | {"timestamp": float("nan")}), "finite", "line 1.timestamp"),
    "unsorted": (rows(SECOND, FIRST), "not sorted", "line 2.timestamp"),
    "no tokens": (rows(FIRST, SECOND | {"output_length": 0}), "must have tokens", "line 2.output_length"),
    "half a token": (rows(FIRST | {"output_length": 1.5}), "whole number", "line 1.output_length"),
    "cut short": (rows(FIRST, SECOND)[:-20], "not JSON", "line 2"),
}


@pytest.mark.parametrize(("content", "says", "at"), JSON_FAULTS.values(), ids=JSON_FAULTS)
def test_faults_of_json_lines_are_named_with_their_line(tmp_path: Path, content: str, says: str, at: str) -> None:
    error = fault(written(tmp_path, content, "trace.jsonl"))
    assert says in error.message
    assert error.key == at


def test_an_empty_json_lines_file_has_no_request(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no request"):
        read_jsonl(written(tmp_path, "\n\n"))


def coarse(folder: Path) -> Path:
    stamps = np.repeat(np.arange(200) * 3000, 10)
    return written(folder, rows(*({**SECOND, "timestamp": int(stamp)} for stamp in stamps)), "coarse.jsonl")


def test_a_coarse_clock_is_noticed_and_spread_on_request(tmp_path: Path) -> None:
    path = coarse(tmp_path)
    raw, loaded = open_trace(path), open_trace(path, seed=4, spread_s=3.0)
    assert any("spread_s: 3" in notice for notice in raw.notices)
    assert any("spread uniformly over the 3 s" in notice for notice in loaded.notices)
    moved = loaded.trace.arrival_s
    assert len(moved) == 2000
    assert loaded.trace.end_s == raw.trace.end_s + 3.0
    # every stamp's ten requests stay in its own 3 s, and lie evenly in them: mean 1.5 within four standard errors
    assert np.bincount((moved // 3.0).astype(int)).tolist() == [10] * 200
    assert abs(np.mean(moved % 3.0) - 1.5) < 4 * (3 / 12**0.5) / 2000**0.5
    assert open_trace(path, seed=4, spread_s=3.0).trace.digest() == loaded.trace.digest()
    assert open_trace(path, seed=5, spread_s=3.0).trace.digest() != loaded.trace.digest()


def test_a_spread_that_is_no_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="spread_s"):
        open_trace(written(tmp_path, GOOD), spread_s=float("inf"))


def test_dates_are_counted_from_the_first(tmp_path: Path) -> None:
    first = 1_700_000_000_000
    loaded = open_trace(written(tmp_path, rows(FIRST | {"timestamp": first}, SECOND | {"timestamp": first + 1500})))
    assert loaded.trace.arrival_s.tolist() == [0.0, 1.5]
    assert any("dates" in notice for notice in loaded.notices)


def test_a_million_requests_are_read_in_a_second_of_processor_time() -> None:
    path = trace_file("servegen-mlarge-day8")
    read_csv(path)
    fastest = min(_seconds(path) for _ in range(3))
    assert fastest < 1.0


def _seconds(path: Path) -> float:
    start = time.process_time()
    assert len(read_csv(path)) == 998_050
    return time.process_time() - start


def test_importing_traffic_loads_no_pandas() -> None:
    code = "import sys, tiphys.traffic; print(sorted({'pandas', 'pyarrow', 'numba', 'optuna'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
