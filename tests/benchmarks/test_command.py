import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.table import BENCHMARKS, Row, available, load

COUNTING = """
from benchmarks.base import Benchmark, read_rows, write_rows

def run(folder, smoke, progress):
    rows = read_rows(folder / "rows.parquet")
    for i in range(len(rows), 4):
        if i == 2 and (folder.parent / "interrupt").exists():
            raise KeyboardInterrupt
        rows.append({"i": i, "smoke": smoke})
        write_rows(folder / "rows.parquet", rows)
        progress((i + 1) / 4)

def page(folder):
    return f"## Counting\\n\\n{[row['i'] for row in read_rows(folder / 'rows.parquet')]}"

BENCHMARK = Benchmark(name="counting", run=run, page=page)
"""


@pytest.fixture
def counting(tmp_path, monkeypatch):
    """A benchmark that counts to four, and stops at two where a file `interrupt` stands beside its
    folder.
    """
    (tmp_path / "counting_benchmark.py").write_text(COUNTING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BENCHMARKS, "counting", Row("counting_benchmark", "How far does it count?"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_benchmarks_are_listed_with_their_questions_when_none_is_named(bench):
    code, out, _ = bench()
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()] == available()
    assert json.loads(bench("--json").out) == {
        name: row.question for name, row in BENCHMARKS.items()
    }


def test_names_are_those_of_the_benchmarks_when_loaded():
    assert {"toy", "awareness"} <= set(available())
    assert [load(name).name for name in available()] == available()


def test_names_are_listed_when_one_is_unknown(bench, tmp_path):
    code, out, err = bench("tyo", "--out", tmp_path / "new")
    assert (code, out) == (2, "")
    assert "'tyo'" in err
    assert "'toy', " in err
    assert "did you mean 'toy'?" in err
    assert not (tmp_path / "new").exists()


def test_page_and_folder_are_printed_when_a_benchmark_is_run(bench, counting):
    code, out, err = bench("counting")
    assert (code, err.strip()) == (0, "")
    assert out == "## Counting\n\n[0, 1, 2, 3]\n\nmeasurements and figures are in bench-counting\n"
    assert json.loads((counting / "bench-counting" / "environment.json").read_text())["finished"]


def test_one_document_is_printed_when_json_is_asked_for(bench, counting):
    code, out, err = bench("counting", "--smoke", "--json", "--out", "here")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "benchmark": "counting",
        "smoke": True,
        "folder": "here",
        "page": "## Counting\n\n[0, 1, 2, 3]",
    }


def test_same_command_goes_on_when_it_was_interrupted(bench, counting):
    (counting / "interrupt").touch()
    code, out, err = bench("counting")
    assert (code, out) == (130, "")
    assert "the same command goes on with what is in bench-counting" in err
    assert not json.loads((counting / "bench-counting" / "environment.json").read_text())[
        "finished"
    ]
    (counting / "interrupt").unlink()
    assert bench("counting").out.startswith("## Counting\n\n[0, 1, 2, 3]\n")


def test_folder_is_refused_when_it_holds_something_else(bench, counting):
    assert bench("counting", "--out", "run").code == 0
    assert bench("counting", "--out", "run").code == 0  # the same run is gone on with
    for arguments, message in (
        (("counting", "--smoke"), "a run of full size"),
        (("toy",), "holds the benchmark 'counting'"),
    ):
        code, _, err = bench(*arguments, "--out", "run")
        assert (code, message in err) == (2, True), err


def test_command_is_refused_when_an_option_is_unknown(bench):
    code, out, err = bench("toy", "--smok3")
    assert (code, out) == (2, "")
    assert "unrecognized arguments: --smok3" in err


def test_listing_needs_no_torch_when_started_as_a_module():
    program = (
        "import sys; from benchmarks.__main__ import main; main([]); "
        "sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, capture_output=True)
