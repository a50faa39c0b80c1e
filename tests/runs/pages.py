"""Reads the report pages in tests: what they show, and whether their structure is sound."""

import itertools
import re
from html.parser import HTMLParser
from importlib import resources

VOID = {"meta", "img", "link", "br", "hr", "input"}


class Reader(HTMLParser):
    """Checks that elements are closed in order, and collects what a page shows and loads.

    Templates and scripts are no part of that: `scripts` has the texts of those by their `id`.
    """

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.pieces, self._rows, self.scripts = [], [], {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "script":
            self.scripts[dict(attrs).get("id")] = ""
        if "template" not in self.open:
            self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            *_, last = self.scripts
            self.scripts[last] += data
            return
        if "template" in self.open:
            return
        self.text += data
        self.pieces.append((data, tuple(self.open)))
        if self.open and self.open[-1] in ("td", "th"):
            self._rows[-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def texts(self):
        return [text for text, _ in self.pieces]

    @property
    def headings(self):
        return [
            (int(path[-1][1]), text)
            for text, path in self.pieces
            if path[-1:] and re.fullmatch("h[1-6]", path[-1])
        ]

    @property
    def rows(self):
        """The cells of each row of each table."""
        return self._rows


def require_structure(reader):
    """One h1, first; no level left out; scrolling parts can be reached with the keyboard and have
    names of their own; nothing in the page has a width that does not give way.
    """
    levels = [level for level, _ in reader.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), reader.headings
    assert all(text.strip() for _, text in reader.headings)
    scrolling = [a for _, a in reader.elements if a.get("class") == "scroll"]
    assert len(scrolling) == len(reader.all("table"))
    assert all(a["tabindex"] == "0" and a["role"] == "region" for a in scrolling)
    names = [a["aria-label"] for a in scrolling]
    assert len(set(names)) == len(names)
    assert not any("style" in attributes for _, attributes in reader.elements)
    assert not any(
        "width" in attributes for tag, attributes in reader.elements if tag not in ("img", "meta")
    )
    assert reader.all("caption") == []  # it would scroll away with the table
    css = resources.files("unalike.runs").joinpath("page.css").read_text("utf-8")
    widths = re.findall(r"(?<![-a-z])width:\s*([^;}]+)", css)
    assert set(widths) <= {"100%"}
    for selector in ("p", "li", "figcaption", "pre"):
        assert re.search(rf"(^|[ ,]){selector}[ ,{{][^}}]*overflow-wrap: anywhere", css, re.M)
    assert re.search(r"^pre {[^}]*white-space: pre-wrap", css, re.M)
