"""Build the emoji data set from font and Unicode tables: `python -m training emoji dataset`.

Writes `images.webp` (every distinct 64×64 image, lossless, 60 to a row) and `entries.json` (a
record an emoji, see `data.Entry`). Needs a Pillow with Raqm, so that skin tones and joined
sequences become one glyph, and Debian's packages fonts-noto-color-emoji, unicode-data and
unicode-cldr-core or the same files from elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from training import options

COLUMNS, SIDE, STRIKE = (
    60,
    64,
    109,
)  # 109 is the one size in which the font holds its bitmaps, 136×128 each
CANVAS = 136
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
HAIR = ("blond hair", "red hair", "curly hair", "white hair", "bald")
PLURAL = {"women": "female", "men": "male", "people": "neutral"}
SINGULAR = {"woman": "female", "man": "male", "person": "neutral"}
LINE = re.compile(r"^([0-9A-F ]+?)\s*; (fully-qualified|component)\s*# \S+ E[\d.]+ (.+)$")


def read_emoji_test(path: Path) -> Iterator[dict[str, str]]:
    """Text, CLDR name, group and subgroup of every fully qualified emoji and component, in the
    order of the file.
    """
    group = subgroup = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        elif match := LINE.match(line):
            text = "".join(chr(int(c, 16)) for c in match[1].split())
            yield {
                "text": text,
                "name": match[3].replace("’", "'"),
                "group": group,
                "subgroup": subgroup,
            }


def read_keywords(*paths: Path) -> dict[str, list[str]]:
    """English CLDR keywords by emoji, the variation selector left out of the key as in those
    tables.
    """
    keywords = {}
    for path in paths:
        for node in ElementTree.parse(path).iter("annotation"):
            if node.get("type") != "tts" and node.text:
                keywords[node.attrib["cp"]] = [
                    k.strip().replace("’", "'") for k in node.text.split("|")
                ]
    return keywords


def structure(name: str, names: set[str]) -> dict[str, object]:
    """Base name, gender, skin tones and hair of a CLDR name such as `woman running: dark skin
    tone`.

    The base leaves out skin tone and gender: `woman running` and `man running` have the base
    `person running`, `woman farmer` has `farmer`, `women wrestling` has `people wrestling`. A
    gender that the name itself does not set apart stays in the base (`princess`).
    """
    head, _, rest = name.partition(": ")
    qualifiers = [q for q in rest.split(", ") if q]
    tones = [q.removesuffix(" skin tone") for q in qualifiers if q.endswith(" skin tone")]
    others = [q for q in qualifiers if not q.endswith(" skin tone")]
    hair = next((q for q in others if q in HAIR), None)
    toneless = head + (": " + ", ".join(others) if others else "")
    first, _, tail = head.partition(" ")
    gender, base = None, head
    if head == "woman and man holding hands":
        base = "people holding hands"
    elif first in PLURAL and f"people {tail}" in names:
        gender, base = PLURAL[first], f"people {tail}"
    elif first in SINGULAR and tail in names:
        gender, base = SINGULAR[first], tail
    elif first in SINGULAR and f"person {tail}" in names:
        gender, base = SINGULAR[first], f"person {tail}"
    elif head in SINGULAR:
        gender, base = SINGULAR[head], "person"
    elif f"woman {head}" in names:
        gender = "neutral"
    kept = [q for q in others if q in HAIR or q == "beard"] if base == "person" else others
    base_name = base + (": " + ", ".join(kept) if kept and base == "person" else "")
    return {"toneless": toneless, "base": base_name, "gender": gender, "tones": tones, "hair": hair}


def render(text: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """One emoji centred on white, (64, 64, 3) uint8.

    Raises:
        SystemExit: where the text does not come out as a single glyph.
    """
    left, top, right, bottom = font.getbbox(text)
    if right - left > CANVAS:
        raise SystemExit(
            f"{text!r} is wider than one glyph: this font or Pillow's Raqm does not join the "
            "sequence"
        )
    image = Image.new("RGB", (CANVAS, CANVAS), "white")
    corner = ((CANVAS - (right - left)) / 2 - left, (CANVAS - (bottom - top)) / 2 - top)
    ImageDraw.Draw(image).text(corner, text, font=font, embedded_color=True)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def build(font_path: Path, test_path: Path, annotations: list[Path], out: Path) -> None:
    """Render every emoji and write both files."""
    if not features.check("raqm"):
        raise SystemExit(
            "this Pillow has no Raqm, without which joined emoji fall apart: install libraqm and "
            "a Pillow built with it"
        )
    font = ImageFont.truetype(str(font_path), STRIKE, layout_engine=ImageFont.Layout.RAQM)
    rows, keywords = list(read_emoji_test(test_path)), read_keywords(*annotations)
    names = {row["name"] for row in rows}
    seen: dict[str, int] = {}
    pictures, entries = [], []
    for row in rows:
        picture = render(row["text"], font)
        digest = hashlib.sha256(picture.tobytes()).hexdigest()
        if digest not in seen:
            seen[digest] = len(pictures)
            pictures.append(picture)
        words = keywords.get(row["text"].replace("\ufe0f", ""), [])
        entries.append(
            row | structure(row["name"], names) | {"keywords": words, "image": seen[digest]}
        )
    sheet = np.full((-(-len(pictures) // COLUMNS) * COLUMNS, SIDE, SIDE, 3), 255, np.uint8)
    sheet[: len(pictures)] = np.stack(pictures)
    sheet = (
        sheet.reshape(-1, COLUMNS, SIDE, SIDE, 3)
        .transpose(0, 2, 1, 3, 4)
        .reshape(-1, COLUMNS * SIDE, 3)
    )
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(out / "images.webp", lossless=True, quality=100, method=6)
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    (out / "entries.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    cldr = Path("/usr/share/unicode/cldr/common")
    parser = options.parser("emoji", "dataset", __doc__)
    parser.add_argument(
        "--font", type=Path, default=Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
    )
    parser.add_argument(
        "--emoji-test", type=Path, default=Path("/usr/share/unicode/emoji/emoji-test.txt")
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        nargs="+",
        default=[cldr / "annotations/en.xml", cldr / "annotationsDerived/en.xml"],
    )
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    build(given.font, given.emoji_test, given.annotations, given.out)
