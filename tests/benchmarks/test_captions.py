import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks import caption_table, captions
from benchmarks.captions import CaptionFilters, build_captions, main
from unalike.errors import OptionError, StoreError

ALL = CaptionFilters(validation=0)


def images(caption: str, hosts: list[str], start: int = 0) -> list[str]:
    return [f"https://{host}/{start + i}.jpg\t{caption}" for i, host in enumerate(hosts)]


def spread(n: int, name: str = "x") -> list[str]:
    return [f"{name}{i}.org" for i in range(n)]


def write(folder: Path, lines: list[str]) -> Path:
    path = folder / "table.tsv"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def built(
    tmp_path: Path, lines: list[str], filters: CaptionFilters = ALL, **options: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    record = build_captions(write(tmp_path, lines), tmp_path / "out", filters, **options)
    assert record == json.loads((tmp_path / "out" / "captions.json").read_text("utf-8"))
    return record, pq.read_table(tmp_path / "out" / "captions.parquet").to_pylist()


def test_each_filter_leaves_what_it_should_when_one_caption_fails_each(tmp_path: Path):
    lines = [
        *images("three images", spread(3)),
        *images("four images", spread(4)),
        *images("most of them", spread(128)),
        *images("one too many", spread(129)),
        *images("album", ["a.b.com", "c.b.com", *spread(2)]),
        *images("Image result for kites", spread(4)),
        *images("<PERSON> with a kite", spread(5)),
    ]
    record, rows = built(tmp_path, lines)
    assert record["table"]["rows"] == len(lines)
    assert record["table"]["captions"] == 7
    assert [(s["captions"], s["images"]) for s in record["filters"]] == [
        (5, 145),
        (4, 141),
        (3, 137),
        (2, 132),
    ]
    assert [(r["caption"], r["images"]) for r in rows] == [
        ("four images", 4),
        ("most of them", 128),
    ]
    assert record["splits"] == {
        "validation": {"captions": 0, "images": 0},
        "test": {"captions": 2, "images": 132},
    }


def test_images_keep_their_rows_and_urls_when_captions_are_mixed(tmp_path: Path):
    lines = [
        line
        for group in zip(images("a", spread(4, "a")), images("b", spread(4, "b")), strict=True)
        for line in group
    ]
    _, rows = built(tmp_path, lines)
    assert [r["rows"] for r in rows] == [[1, 3, 5, 7], [2, 4, 6, 8]]
    for row in rows:
        assert [f"{url}\t{row['caption']}" for url in row["urls"]] == [
            lines[i - 1] for i in row["rows"]
        ]


def test_copies_of_an_image_stay_when_they_are_of_several_sites(tmp_path: Path):
    lines = images("kite", spread(3)) + images("kite", spread(3))
    assert built(tmp_path, lines)[1][0]["images"] == 6


@pytest.mark.parametrize("words", captions.GENERATED)
def test_caption_is_left_out_when_software_wrote_it(tmp_path: Path, words: str):
    lines = (
        images("a kite", spread(4))
        + images(f"x {words} y", spread(4))
        + images(words.lower(), spread(4))
    )
    assert [r["caption"] for r in built(tmp_path, lines)[1]] == ["a kite", words.lower()]


@pytest.mark.parametrize(
    ("hosts", "domain", "kept"),
    [
        (["a.x.com", "b.x.com", "y.com", "z.com"], "site", False),  # half of one site
        (["a.x.com", "b.x.com", "y.com", "z.com", "w.com"], "site", True),
        (["X.com", "x.com:80", "y.com", "z.com"], "site", False),
        (
            ["a.x.co.uk", "b.y.co.uk", "c.z.co.uk", "d.w.co.uk"],
            "site",
            True,
        ),  # four sites below co.uk
        (["1.2.3.4", "5.6.3.4", "7.8.3.4", "9.9.3.4"], "site", True),
        (["x.com", "y.com", "z.org", "w.net"], "suffix", False),
        (["x.com", "y.de", "z.org", "w.net"], "suffix", True),
    ],
)
def test_caption_is_left_out_when_its_images_are_of_one_place(
    tmp_path: Path, hosts: list[str], domain: str, kept: bool
):
    lines = images("kite", hosts) + images("other", ["a.de", "b.org", "c.net", "d.com"])
    _, rows = built(tmp_path, lines, CaptionFilters(validation=0, domain=domain))
    assert ("kite" in [r["caption"] for r in rows]) is kept


def test_share_of_a_place_is_what_is_asked_for_when_another_is_given(tmp_path: Path):
    lines = images("kite", ["a.x.com", "b.x.com", "y.com", "z.com"])
    assert (
        built(tmp_path, lines, CaptionFilters(validation=0, domain_share=0.51))[1][0]["images"] == 4
    )


def many() -> list[str]:
    return [line for n in range(4, 60) for line in images(f"caption {n}", spread(n))]


def test_split_is_that_of_the_captions_when_the_table_is_in_another_order(tmp_path: Path):
    filters = CaptionFilters(validation=10, seed=3)
    record, rows = built(tmp_path, many(), filters)
    (tmp_path / "turned").mkdir()
    _, turned = built(tmp_path / "turned", many()[::-1], filters)
    assert [(r["caption"], r["split"]) for r in rows] == [
        (r["caption"], r["split"]) for r in turned
    ]
    assert Counter(r["split"] for r in rows) == {"validation": 10, "test": 46}
    assert record["splits"]["validation"]["images"] == sum(
        r["images"] for r in rows if r["split"] == "validation"
    )


def test_split_is_another_when_the_seed_is(tmp_path: Path):
    (tmp_path / "other").mkdir()
    _, one = built(tmp_path, many(), CaptionFilters(validation=10, seed=1))
    _, other = built(tmp_path / "other", many(), CaptionFilters(validation=10, seed=2))
    assert [r["split"] for r in one] != [r["split"] for r in other]


def test_table_of_splits_has_the_ranges_of_the_paper_when_filters_are_its_own(tmp_path: Path):
    record, rows = built(tmp_path, many(), CaptionFilters(validation=10))
    table = record["images_per_caption"]
    assert [r["images"] for r in table] == [
        "4 to 5",
        "6 to 10",
        "11 to 20",
        "21 to 30",
        "31 to 40",
        "41 to 50",
        "51 to 128",
    ]
    assert [r["validation"] + r["test"] for r in table] == [2, 5, 10, 10, 10, 10, 9]
    assert sum(r["validation"] for r in table) == 10
    low = [r for r in rows if r["images"] <= 5]
    assert table[0]["test"] == sum(r["split"] == "test" for r in low)


BAD = [
    "no tab",
    "https://x.org/1.jpg\ta\tb",
    "x.org/1.jpg\ta kite",
    "https://x.org/1.jpg\t ",
    "url\tcaption",
]


def test_table_is_refused_when_rows_are_bad(tmp_path: Path):
    path = write(tmp_path, images("kite", spread(4)) + BAD)
    with path.open("ab") as file:
        file.write(b"https://x.org/\xff.jpg\tkite\n")
    with pytest.raises(
        StoreError,
        match=r"6 of 10 rows of .* row 5 has 1 fields in place of 2; .* row 8 has an empty "
        r"caption; .* …; mend",
    ):
        build_captions(path, tmp_path / "out", ALL)
    assert [p.name for p in tmp_path.iterdir()] == ["table.tsv"]


def test_bad_rows_are_counted_and_listed_when_skipped(tmp_path: Path):
    record, rows = built(tmp_path, BAD + images("kite", spread(4)), skip_bad=True)
    assert rows[0]["rows"] == [6, 7, 8, 9]
    assert record["table"]["skipped"] == {
        "1 fields in place of 2": 1,
        "3 fields in place of 2": 1,
        "no http URL in its first field": 2,
        "an empty caption": 1,
    }
    listed = (tmp_path / "out" / "skipped.tsv").read_text("utf-8").splitlines()
    assert [line.split("\t")[0] for line in listed] == ["1", "2", "3", "4", "5"]


def test_line_ends_of_windows_and_a_last_line_without_end_are_taken_when_there_are_some(
    tmp_path: Path,
):
    path = tmp_path / "table.tsv"
    path.write_bytes("\r\n".join(images("un cerf-volant à l'étang", spread(4))).encode())
    build_captions(path, tmp_path / "out", ALL)
    assert pq.read_table(tmp_path / "out" / "captions.parquet")["caption"].to_pylist() == [
        "un cerf-volant à l'étang"
    ]


def test_captions_stay_apart_when_their_digests_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(caption_table, "_digest", lambda caption: bytes(8))
    record, rows = built(
        tmp_path, images("a", spread(4)) + images("b", spread(3)) + images("c", spread(5))
    )
    assert [(r["caption"], r["images"]) for r in rows] == [("a", 4), ("c", 5)]
    assert record["filters"][0]["captions"] == 2


def test_folder_is_left_as_it_is_when_it_has_files(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="is not empty; choose another"):
        build_captions(write(tmp_path, images("kite", spread(4))), tmp_path / "out", ALL)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_empty_folder_is_taken_when_it_is_there(tmp_path: Path):
    (tmp_path / "out").mkdir()
    assert built(tmp_path, images("kite", spread(4)))[1][0]["caption"] == "kite"


def test_nothing_is_left_when_interrupted(tmp_path: Path):
    def interrupt(share: float) -> None:
        if share == 1:
            raise KeyboardInterrupt

    path = write(tmp_path, images("kite", spread(4)))
    with pytest.raises(KeyboardInterrupt):
        build_captions(path, tmp_path / "out", ALL, progress=interrupt)
    assert [p.name for p in tmp_path.iterdir()] == ["table.tsv"]


def test_progress_grows_to_the_end_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caption_table, "_STRIDE", 2)
    shares: list[float] = []
    built(tmp_path, images("kite", spread(9)), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) == 10


@pytest.mark.parametrize(
    ("lines", "filters", "error", "message"),
    [
        ([], ALL, StoreError, "no caption of the table passes the filters"),
        (images("kite", spread(3)), ALL, StoreError, "no caption of the table passes the filters"),
        (
            images("kite", spread(4)),
            CaptionFilters(),
            OptionError,
            "validation is 554 and 1 captions are left",
        ),
    ],
)
def test_table_is_refused_when_too_little_is_left(
    tmp_path: Path, lines: list[str], filters: CaptionFilters, error: Any, message: str
):
    with pytest.raises(error, match=message):
        build_captions(write(tmp_path, lines), tmp_path / "out", filters)
    assert not (tmp_path / "out").exists()


def test_table_is_refused_when_it_is_not_there(tmp_path: Path):
    with pytest.raises(StoreError, match=r"there is no table .*none\.tsv"):
        build_captions(tmp_path / "none.tsv", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"least": 5, "most": 4}, "least is 5 and most is 4"),
        ({"domain": "host"}, "domain is 'host'; allowed: 'site', 'suffix'"),
        ({"domain_share": 0}, "domain_share is 0; it must be above 0"),
        ({"validation": -1}, "validation is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_filters_are_refused_when_they_are_wrong(options: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        CaptionFilters(**options)


def test_command_builds_and_prints_the_record_when_run_as_a_module(tmp_path: Path):
    path, out = (
        write(tmp_path, [*images("kite", spread(4)), *images("dog", spread(6)), "bad"]),
        tmp_path / "out",
    )
    command = [
        sys.executable,
        "-m",
        "benchmarks.captions",
        str(path),
        "--out",
        str(out),
        "--validation",
        "1",
        "--skip-bad",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == json.loads((out / "captions.json").read_text("utf-8"))


def test_command_ends_with_one_sentence_when_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main([str(write(tmp_path, ["bad"])), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "1 of 1 rows" in capsys.readouterr().err
