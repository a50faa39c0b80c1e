import json
import platform

import pytest
import torch

from benchmarks import figure
from benchmarks.base import (
    claim,
    environment,
    finish,
    interval,
    machine,
    read_rows,
    table,
    write_rows,
)
from unalike.errors import StoreError, UnsupportedError


def test_environment_names_versions_and_processor_but_no_host_when_a_folder_is_claimed(tmp_path):
    folder = tmp_path / "new" / "toy"
    claim(folder, "toy", smoke=True)
    found = environment(folder)
    assert (found["benchmark"], found["smoke"], found["finished"], found["torch"]) == (
        "toy",
        True,
        False,
        torch.__version__,
    )
    assert platform.node() not in json.dumps(found)
    finish(folder)
    assert environment(folder) == {**found, "finished": True}


def test_folder_is_gone_on_with_when_it_holds_the_same_run(tmp_path):
    claim(tmp_path, "toy", smoke=False)
    (tmp_path / "rows.parquet").touch()
    finish(tmp_path)
    claim(tmp_path, "toy", smoke=False)
    assert environment(tmp_path)["finished"]


@pytest.mark.parametrize(
    ("name", "smoke", "message"),
    [("cost", False, "holds the benchmark 'toy'"), ("toy", True, "a run of full size")],
)
def test_folder_is_refused_and_left_when_it_holds_another_run(tmp_path, name, smoke, message):
    claim(tmp_path, "toy", smoke=False)
    before = environment(tmp_path)
    with pytest.raises(StoreError, match=rf"{message}.*--out"):
        claim(tmp_path, name, smoke=smoke)
    assert environment(tmp_path) == before


@pytest.mark.parametrize("text", [None, "{", "[]", '{"benchmark": "toy"}'])
def test_folder_is_refused_when_its_files_are_of_something_else(tmp_path, text):
    (tmp_path / ("notes.txt" if text is None else "environment.json")).write_text(text or "mine")
    with pytest.raises(StoreError, match="no benchmark wrote"):
        claim(tmp_path, "toy", smoke=False)


def test_folder_is_refused_when_it_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        claim(tmp_path / "file", "toy", smoke=False)


def test_rows_come_back_when_written(tmp_path):
    rows = [
        {"name": "a", "count": 1, "share": 0.5, "done": True},
        {"name": "ü", "count": 2, "share": 1.0, "done": False},
    ]
    assert read_rows(tmp_path / "rows.parquet") == []
    write_rows(tmp_path / "rows.parquet", rows)
    assert read_rows(tmp_path / "rows.parquet") == rows
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


def test_rows_are_refused_when_the_file_is_damaged(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(StoreError, match=r"damaged.*remove it"):
        read_rows(tmp_path / "rows.parquet")


def test_table_has_a_line_a_row_when_cells_are_of_any_kind():
    assert table(["a", "b"], [[1, "x"], [2.5, None]]).splitlines() == [
        "| a | b |",
        "|---|---|",
        "| 1 | x |",
        "| 2.5 | None |",
    ]


def test_interval_is_that_of_the_normal_approximation_when_values_are_many():
    values = torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low, high = interval(values)
    half = 1.96 * values.std().item() / 20
    assert low == pytest.approx(values.mean().item() - half, abs=0.02)
    assert high == pytest.approx(values.mean().item() + half, abs=0.02)


def test_interval_has_no_width_when_all_values_are_equal_and_keeps_units_whole():
    assert interval(torch.full((5,), 0.25)) == (0.25, 0.25)
    pairs = torch.tensor(
        [[1.0, -1.0], [3.0, -3.0]]
    )  # a unit's two numbers are drawn together: their sum stays 0
    assert interval(pairs, lambda drawn: drawn.mean(dim=1).sum(dim=1)) == (0.0, 0.0)


def test_machine_states_the_threads_when_they_change():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert machine()["threads"] == 1
    finally:
        torch.set_num_threads(before)


def test_message_names_the_install_command_when_matplotlib_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(figure, "find_spec", lambda name: None)
    with (
        pytest.raises(UnsupportedError, match=r"pip install -e '\.\[dev\]'"),
        figure.drawn(tmp_path / "a.png", 1, 1),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_figure_has_the_same_bytes_when_drawn_twice(tmp_path):
    for name in ("a.png", "b.png"):
        with figure.drawn(tmp_path / name, 2, 1) as drawing:
            drawing.subplots().plot([0, 1], color=figure.COLOURS[0])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_figure_is_not_written_when_drawing_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), figure.drawn(tmp_path / "a.png", 2, 1):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_colours_and_markers_are_enough_when_ten_methods_are_drawn():
    assert len(set(figure.COLOURS)) == len(set(figure.MARKERS)) == 10
