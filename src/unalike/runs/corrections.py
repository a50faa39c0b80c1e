"""What the guidance did, as a section of a page: words, charts and tables of its corrections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from unalike.runs.charts import band_chart
from unalike.runs.html import details, note, panel, panels, table
from unalike.runs.numbers import counted, percent
from unalike.runs.samples import Sample, usual_steps

_OF_IMAGE, _OF_STEP = "share of the predicted image", "share of the denoiser's own step"
_SPANS_NAMED = 4


def corrections_section(record: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    """The section as HTML; empty where no method was used.

    Args:
        record: what `run.json` holds.
        samples: the images that were returned.
    """
    names = list(dict.fromkeys(m for s in samples for m in s.report.corrections))
    if not names:
        return ""
    parts, used = ["<h2>What the guidance did</h2>"], record.get("methods_as_used") or []
    for i, name in enumerate(names):
        entry = used[i] if i < len(used) else {}  # in restarts SPELL acts too
        drawn = usual_steps(samples, name)
        of_image = [s.report.corrections_of_x0[name] for s in drawn]
        of_step = [s.report.corrections[name] for s in drawn]
        active = [s.report.active[name] for s in drawn]
        parts.append(f"<h3>{escape(name)}</h3>")
        text = _acted(of_image, sum(active) / len(active), entry.get("renewal"))
        if not any(map(any, of_image)):
            parts.append(note(text))
            continue
        text += (
            f" Lines: the size of the correction, mean over {counted(len(drawn), 'image')}; "
            "bands: from the smallest to the largest. A logarithmic scale has no zero, so images "
            "and steps without a correction are left out there."
        )
        charts = [
            _correction_chart(name, of_image, _OF_IMAGE, log=False),
            _correction_chart(name, of_step, _OF_STEP, log=True),
        ]
        parts += [note(text), panels(charts)]
        parts.append(details("The same as a table", _correction_table(name, of_image, of_step)))
    return "\n".join(parts)


def _acted(
    of_image: Sequence[Sequence[float]], active: float, renewal: Mapping[str, Any] | None
) -> str:
    """At which steps a method corrected predictions, and what else it did.

    Args:
        of_image: a row an image: the size of its correction at each step.
        active: the share of steps, over all images, at which it did anything.
        renewal: how much noise it had drawn anew; None where it asked for none.
    """
    steps = len(of_image[0])
    corrected = [i for i, sizes in enumerate(zip(*of_image, strict=True)) if any(sizes)]
    if corrected:
        text = f"It corrected predictions at {len(corrected)} of {counted(steps, 'step')}"
        text += f" ({_spans(corrected)})."
    else:
        text = "It corrected no prediction."
    if renewal and renewal["used"] > 0:
        much = "all" if renewal["used"] == 1 else percent(renewal["used"])
        text += f" At {renewal['steps']} of {counted(steps, 'step')} {much} of the noise was drawn "
        text += "anew, which corrects no prediction."
    elif renewal:
        text += " It asked for noise to be drawn anew, which this scheduler does not allow, so "
        text += "that none was."
    elif not corrected and active > 0:
        text += f" It acted at {percent(active)} of the steps of all images, by what the model was "
        text += "told of the prompts."
    return text


def _spans(steps: Sequence[int]) -> str:
    """Numbers of steps in words.

    Example:
        >>> _spans([0, 1, 2, 5]), _spans(range(0, 20, 2))
        ('steps 0 to 2, 5', 'between steps 0 and 18')
    """
    spans: list[list[int]] = []
    for step in steps:
        if spans and spans[-1][-1] == step - 1:
            spans[-1].append(step)
        else:
            spans.append([step])
    if len(spans) > _SPANS_NAMED:
        return f"between steps {steps[0]} and {steps[-1]}"
    named = [f"{s[0]} to {s[-1]}" if len(s) > 1 else f"{s[0]}" for s in spans]
    return f"step{'s' if len(steps) > 1 else ''} {', '.join(named)}"


def _correction_chart(name: str, rows: Sequence[Sequence[float]], share: str, *, log: bool) -> str:
    chart = band_chart(
        rows,
        title=f"Correction of {name} at each step as a {share}; the table below has the numbers",
        x_label="step",
        y_label="share",
        log=log,
    )
    return panel(chart, share + (", logarithmic scale" if log else ""), level=4)


def _correction_table(
    name: str, of_image: Sequence[Sequence[float]], of_step: Sequence[Sequence[float]]
) -> str:
    columns = zip(zip(*of_image, strict=True), zip(*of_step, strict=True), strict=True)
    rows = [
        [str(i), *(percent(v) for c in both for v in (sum(c) / len(c), min(c), max(c)))]
        for i, both in enumerate(columns)
    ]
    sizes = ("mean", "smallest", "largest")
    head = ["step", *(f"{size} {of}" for of in ("of image", "of step") for size in sizes)]
    about = note(
        f"Size of the correction as a {_OF_IMAGE} (of image) and as a {_OF_STEP} (of step)."
    )
    return about + table(f"Corrections of {name} at each step", head, rows, numbers_from=0)
