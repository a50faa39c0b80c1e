import xml.etree.ElementTree as ET

import pytest

from unalike.runs.charts import band_chart, dot_chart
from unalike.runs.numbers import number, percent


def points(svg, kind):
    (element,) = [e for e in ET.fromstring(svg) if e.get("class") == kind]
    return [tuple(map(float, p.split(","))) for p in element.attrib["points"].split()]


def chart(series, **options):
    return band_chart(series, title='a "chart" & more', x_label="step", y_label="share", **options)


def test_line_is_the_mean_and_band_the_range_when_rows_differ():
    svg = chart([[0.0, 0.2, 0.4], [0.2, 0.2, 0.0]])
    bottom, top = points(chart([[0.0, 1.0]]), "line")
    height = bottom[1] - top[1]
    line = [(bottom[1] - y) / height * 0.4 for _, y in points(svg, "line")]
    band = [(bottom[1] - y) / height * 0.4 for _, y in points(svg, "band")]
    assert line == pytest.approx([0.1, 0.2, 0.2], abs=2e-3)
    assert band == pytest.approx([0.2, 0.2, 0.4, 0.0, 0.2, 0.0], abs=2e-3)


def test_equal_factors_are_equal_distances_when_logarithmic():
    ys = [y for _, y in points(chart([[0.01, 0.1, 1.0]], log=True), "line")]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)
    assert ys[0] > ys[2]


def test_tiny_values_lie_on_the_axis_when_logarithmic():
    tiny, small, _ = (y for _, y in points(chart([[1e-12, 1e-9, 1.0]], log=True), "line"))
    assert tiny == small


def test_steps_without_a_value_are_left_out_when_logarithmic():
    svg = ET.fromstring(
        chart([[0.1, 0.2, 0.0, 0.0, 0.4, 0.0], [0.2, 0.0, 0.0, 0.0, 0.4, 0.0]], log=True)
    )
    lines = [
        [tuple(map(float, p.split(","))) for p in e.attrib["points"].split()]
        for e in svg
        if e.get("class") == "line"
    ]
    assert [len(line) for line in lines] == [2, 1]
    (dot,) = [e for e in svg if e.get("class") == "dot"]
    assert (float(dot.attrib["cx"]), float(dot.attrib["cy"])) == lines[1][0]
    bottom = 170 - 34  # the axis
    assert all(y < bottom for line in lines for _, y in line)
    assert lines[0][1][1] < lines[0][0][1]  # 0.2 of the one image that was corrected, above 0.15


@pytest.mark.parametrize("series", [[[0.0, 0.0]], [[0.5]], [[]]])
@pytest.mark.parametrize("log", [False, True])
def test_chart_is_well_formed_when_there_is_little_to_draw(series, log):
    assert ET.fromstring(chart(series, log=log)).get("aria-label") == 'a "chart" & more'


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (1, "100%"), (0.056, "5.6%"), (3.333, "333%"), (1e-7, "1\u00a0×\u00a010⁻⁵%")],
)
def test_percent_has_two_digits_when_below_ten(share, text):
    assert percent(share) == text


def test_dots_lie_on_one_scale_and_lines_reach_the_ends_when_there_are_intervals():
    svg = ET.fromstring(
        dot_chart([("a <b>", 2.0, 1.5, 3.0), ("long " * 20, 1.0, None, None)], title="t", start=1)
    )
    first, second = [float(c.get("cx", 0)) for c in svg.iter("circle")]
    (line,) = [e for e in svg.iter("line") if e.get("class") == "line"]
    left, right = float(line.get("x1", 0)), float(line.get("x2", 0))
    assert (left - second) / (right - second) == pytest.approx(0.25, abs=0.01)
    assert (first - second) / (right - second) == pytest.approx(0.5, abs=0.01)
    texts = [t.text for t in svg.iter("text")]
    assert "a <b>" in texts
    assert [t for t in texts if t in ("1", "1.5", "2", "2.5", "3")] == ["1", "1.5", "2", "2.5", "3"]
    assert max(len(t or "") for t in texts) == 26


@pytest.mark.parametrize("value", [1.0, 1.0000001, 400.0])
def test_dots_are_drawn_when_all_are_the_same(value):
    svg = ET.fromstring(dot_chart([("a", value, value, value)], title="t", start=1))
    assert 2 <= len([e for e in svg.iter("line") if e.get("class") == "grid-line"]) <= 8


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (6.67e-06, "6.67\u00a0×\u00a010⁻⁶"),
        (-6.6666e-06, "-6.667\u00a0×\u00a010⁻⁶"),
        (0.000123456, "0.0001235"),
        (9.99996, "10"),
        (9.4499, "9.45"),
        (1234567.0, "1,235,000"),
        (-5.21094, "-5.211"),
        (1e16, "1\u00a0×\u00a010¹⁶"),
        (float("nan"), "nan"),
    ],
)
def test_number_is_written_for_people(value, text):
    assert number(value) == text
