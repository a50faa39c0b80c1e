import inspect
import io
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from diffusers import DiTPipeline, StableDiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]
from hypothesis import given, settings
from hypothesis import strategies as st

from unalike.errors import OptionError, RowsError
from unalike.runs.rows import PromptRow, read_rows, require_arguments


def rows_of(text, **options):
    """The rows of standard input."""
    return read_rows("-", stdin=io.BytesIO(text.encode()), **options)


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


EXPECTED = [
    PromptRow(2, "a cat", "x", 4, 10, "dog", "g", {"height": 64, "guidance_scale": 1.5}),
    PromptRow(3, "red, round", "2", arguments={"use_resolution_binning": False}),
]
CSV = (
    "prompt,n,seed,negative_prompt,id,group,height,guidance_scale,use_resolution_binning\n"
    'a cat,4,10,dog,x,g,64,1.5,\n"red, round",,,,,,,,False\n'
)
OBJECTS = [
    {
        "caption": "a cat",
        "num": 4,
        "seed": 10,
        "negative": "dog",
        "key": "x",
        "group": "g",
        "height": 64,
        "guidance_scale": 1.5,
    },
    {"text": "red, round", "use_resolution_binning": False, "n": None, "id": ""},
]


def in_format(folder, kind):
    if kind == ".csv":
        return written(folder, "p.csv", CSV)
    if kind == ".tsv":
        return written(
            folder,
            "p.tsv",
            CSV.replace('"red, round"', "red; round").replace(",", "\t").replace(";", ","),
        )
    if kind == ".jsonl":
        return written(folder, "p.jsonl", "\n" + "\n".join(map(json.dumps, OBJECTS)))
    if kind == ".json":
        return written(folder, "p.json", json.dumps(["first", *OBJECTS]))
    columns = ("prompt", "n", "seed", "negative", "name", "group", "height", "guidance_scale")
    values = [["first", None, None, None, None, None, None, None]]
    values += [["a cat", 4.0, 10, "dog", "x", "g", 64, 1.5], ["red, round"] + [None] * 7]
    table = {c: [row[i] for row in values] for i, c in enumerate(columns)}
    pq.write_table(
        pa.table({**table, "use_resolution_binning": [None, None, False]}), folder / "p.parquet"
    )
    return folder / "p.parquet"


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_rows_are_the_same_when_read_from_any_format(tmp_path, kind):
    found = read_rows(in_format(tmp_path, kind))[-2:]
    number = "3" if kind in (".json", ".parquet") else "2"
    assert found == [
        EXPECTED[0],
        PromptRow(3, "red, round", number, arguments=EXPECTED[1].arguments),
    ]
    assert [type(v) for row in found for v in row.arguments.values()] == [int, float, bool]


def test_prompts_are_lines_when_the_file_is_text(tmp_path):
    path = written(tmp_path, "p.TXT", b"\xef\xbb\xbf a cat \r\n\r\n# red\r{x|y}\n")
    assert [(r.line, r.prompt, r.id) for r in read_rows(path)] == [
        (1, "a cat", "1"),
        (3, "# red", "2"),
        (4, "{x|y}", "3"),
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(
            st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1
        ).filter(str.strip),
        min_size=1,
        unique_by=str.strip,
    )
)
def test_prompts_are_those_written_when_read_back_from_a_stream(prompts):
    text = "\n".join(json.dumps({"prompt": p}) for p in prompts)
    assert [row.prompt for row in rows_of(text)] == [p.strip() for p in prompts]


def test_arguments_are_numbers_only_when_they_look_so(tmp_path):
    path = written(
        tmp_path,
        "p.csv",
        'Prompt, Steps ,eta,prompt_2,original_size,flag,word\ncat,4.0,0,3,"8,8",TRUE,x y\n',
    )
    (row,) = read_rows(path)
    assert row.arguments == {
        "num_inference_steps": 4,
        "eta": 0,
        "prompt_2": "3",
        "original_size": (8.0, 8.0),
        "flag": True,
        "word": "x y",
    }
    assert type(row.arguments["num_inference_steps"]) is int


def test_all_bad_rows_are_told_at_once_when_there_are_some(tmp_path):
    path = written(
        tmp_path,
        "p.csv",
        "prompt,n,seed,id,steps,guidance_scale,other,latents\n"
        ",1,,,,,,\ncat,0,,,,,,\ncat,1.5,,,,,,\ncat,many,-1,,,,,\n"
        "cat,1,99999999999999999999,,,,,\ncat,,,,0,nan,,\ncat,,,,,,inf,\n"
        "cat,1\ndog,,,a,,,,\nbird,,,a,,,,\nfish,2,9223372036854775807,,,,,\n",
    )
    with pytest.raises(RowsError) as caught:
        read_rows(path, option="prompts_file")
    lines = str(caught.value).split("\n  ")
    assert lines[0] == f"prompts_file is {str(path)!r}, which has 13 faults:"
    starts = [
        "line 2 has the column 'latents'; the noise follows from the seed",
        "line 2 has no prompt",
        "line 3 has n 0; allowed: a whole number at least 1 and at most 100,000",
        "line 4 has n 1.5; allowed",
        "line 5 has n 'many'; allowed",
        "line 5 has seed -1; allowed",
        "line 6 has seed 99999999999999999999; allowed",
        "line 7 has num_inference_steps 0; allowed: a whole number at least 1 and at most 10,000",
        "line 7 has guidance_scale nan; allowed: a number at least 0",
        "line 8 has other inf; allowed: a finite number",
        "line 9 has 2 fields and the header has 8",
        "line 11 has the id 'a', as line 10 has",
        "line 12 has seed 9223372036854775807; allowed: at most 2**63",
    ]
    assert len(lines) == 1 + len(starts)
    assert all(line.startswith(start) for line, start in zip(lines[1:], starts, strict=True))
    assert [number for number, _ in caught.value.faults] == [
        2,
        2,
        3,
        4,
        5,
        5,
        6,
        7,
        7,
        8,
        9,
        11,
        12,
    ]


def test_first_faults_are_listed_and_the_others_counted_when_there_are_many():
    with pytest.raises(RowsError, match=r"1,500 faults") as caught:
        rows_of("\n".join(['{"n": 1}'] * 1500))
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  … and 1,480 more"
    assert len(caught.value.faults) == 1500


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"prompt": "c\0t"}, "which has a NUL character"),
        ({"prompt": "\ud800"}, "no UTF-8 text"),
        ({"prompt": 5}, "has prompt 5; allowed: text"),
        ({"promt": "x"}, "has no prompt"),
        ({"prompt": "x", "text": "y"}, "has prompt in two columns"),
        ({"prompt": "x", "id": True}, "has id True; allowed: text"),
        ({"prompt": "x", "n": True}, "has n True; allowed: a whole number"),
        ({"prompt": "x", "n": "2"}, "has n '2'; allowed: a whole number"),
        ({"prompt": "x", "n": 10**6}, "at most 100,000"),
        ({"prompt": "x", "eta": float("nan")}, "has eta nan; allowed: a finite number"),
        ({"prompt": "x", "eta": 10**400}, "has eta a whole number of 1329 bits; allowed"),
        ({"prompt": "x", "eta": {"a": 1}}, "has eta .* allowed: a finite number"),
        ({"prompt": "x", "sigmas": ["a"]}, "has sigmas .* allowed: a finite number"),
        ({"prompt": "x", "sigmas": []}, "has sigmas .* allowed: a finite number"),
        ({"prompt": "x", "my note": 1}, "has the column 'my note'; no pipeline"),
        ({"prompt": "x", "num_images_per_prompt": 1}, "name it n"),
        ({"prompt": "x", "generator": 1}, "name it seed"),
        ({"prompt": "x", "output_type": "pt"}, "unalike sets this argument itself"),
        ({"prompt": "x", "callback_on_step_end": 1}, "unalike sets this argument itself"),
        ({"prompt": "x", "negative_prompt_embeds": 1}, "a row has its prompt as text"),
        ({"prompt": "x", "mask_image": "a.png"}, "an image cannot be given in a row"),
    ],
)
def test_row_is_refused_when_a_value_or_column_is_not_allowed(fields, fault):
    with pytest.raises(RowsError, match=f"line 1 .*{fault}"):
        rows_of(json.dumps(fields))


@pytest.mark.parametrize(
    ("second", "again"),
    [
        ({}, True),
        ({"n": 1}, True),
        ({"seed": 7}, True),
        ({"id": "other"}, True),
        ({"group": "other"}, True),
        ({"seed": 8}, False),
        ({"negative_prompt": "dog"}, False),
        ({"height": 64}, False),
        ({"prompt": "Cat"}, False),
    ],
)
def test_row_is_refused_only_when_it_draws_images_of_another_again(second, again):
    text = "\n".join(json.dumps(r) for r in ({"prompt": "cat"}, {"prompt": "cat", **second}))
    if again:
        with pytest.raises(RowsError, match="line 2 draws images of line 1 again"):
            rows_of(text, num=8)
    else:
        assert len(rows_of(text, num=8)) == 2


def test_seeds_of_the_run_count_when_repeats_are_found():
    text = '{"prompt": "cat"}\n{"prompt": "cat", "seed": 0, "n": 8}'
    assert len(rows_of(text, seed=8)) == 2
    with pytest.raises(RowsError, match=r"line 2 draws images of line 1 again.* seed 7"):
        rows_of(text, seed=7)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", None, "it is not there"),
        ("p.xlsx", "x", r"of another kind; allowed: a \.txt"),
        ("p.csv", "promt,n\na,1\n", "columns promt, n; .* rename 'promt'"),
        ("p.csv", "words,n\na\nb,1\n", "columns words, n; one of them has to be prompt"),
        ("p.csv", "prompt;n\na;1\n", "separate the columns of a .csv by commas"),
        ("p.csv", "prompt,n\n", "it has no prompt"),
        ("p.txt", " \n", "it has no prompt"),
        ("p.txt", "caf\xe9".encode("latin-1"), "line 1 has bytes that are no UTF-8 text"),
        ("p.csv", "prompt\ncat".encode("utf-16"), "it is UTF-16 text; save it as UTF-8"),
        ("p.json", '{"prompt": "x"}', "it is no list"),
        ("p.json", "[", "cannot be read"),
        ("p.parquet", "x", "cannot be read"),
    ],
)
def test_file_is_refused_when_it_has_no_rows(tmp_path, name, content, message):
    path = tmp_path / name if content is None else written(tmp_path, name, content)
    with pytest.raises(OptionError, match=f"prompts is .*{message}"):
        read_rows(path)


def test_wildcards_are_chosen_only_when_asked_for(tmp_path):
    (tmp_path / "animals.txt").write_text("lion\n")
    text = (
        '{"prompt": "{red|blue} __animals__", "n": 3, "seed": 5, "negative": "{x|y}", "group": "g"}'
        '\n{"prompt": "cat"}'
    )
    assert [r.prompt for r in rows_of(text)] == ["{red|blue} __animals__", "cat"]
    rows = rows_of(text, wildcards=tmp_path)
    assert [(r.id, r.n, r.seed, r.line, r.group) for r in rows] == [
        ("1-0", 1, 5, 1, "g"),
        ("1-1", 1, 6, 1, "g"),
        ("1-2", 1, 7, 1, "g"),
        ("2", None, None, 2, None),
    ]
    assert {r.prompt for r in rows[:3]} <= {"red lion", "blue lion"}
    assert {r.negative_prompt for r in rows[:3]} <= {"x", "y"}
    more = rows_of(text.replace('"n": 3', '"n": 5'), wildcards=tmp_path)
    assert more[:3] == rows[:3]


def test_bad_wildcards_are_told_with_other_faults_when_there_are_some():
    with pytest.raises(RowsError) as caught:
        rows_of('{"prompt": "{a"}\n{"n": 1}\n{"prompt": "__b__"}', expand=True)
    assert [number for number, _ in caught.value.faults] == [1, 2, 3]
    assert "give it, as in wildcards=DIR" in str(caught.value)


def test_row_is_refused_when_it_draws_what_wildcards_chose():
    prompt = rows_of('{"prompt": "{a|b}", "n": 1}', expand=True)[0].prompt
    with pytest.raises(RowsError, match="line 2 draws images of line 1 again"):
        rows_of(f'{{"prompt": "{{a|b}}"}}\n{{"prompt": "{prompt}"}}', expand=True)


def test_ids_are_refused_when_rows_of_wildcards_have_them_too():
    with pytest.raises(RowsError, match="has the id '1-0', as line"):
        rows_of('{"prompt": "{a|b}"}\n{"prompt": "c", "id": "1-0"}', expand=True)


ROWS = [
    PromptRow(2, "cat", "1", arguments={"hieght": 5, "eta": "high", "clip_skip": 1.5}),
    PromptRow(3, "dog", "2", negative_prompt="x", arguments={"hieght": 6, "model": "y"}),
    PromptRow(4, "owl", "3", arguments={"kwargs": 1, "timesteps": (5, 1), "guidance_scale": 3}),
]


def test_columns_are_refused_when_the_pipeline_does_not_take_them():
    parameters = inspect.signature(StableDiffusionPipeline.__call__).parameters
    with pytest.raises(RowsError) as caught:
        require_arguments(ROWS, parameters, "StableDiffusionPipeline")
    assert [(n, text.partition(";")[0]) for n, text in caught.value.faults] == [
        (2, "has the column 'hieght', which is no argument of StableDiffusionPipeline"),
        (2, "has eta 'high'"),
        (2, "has clip_skip 1.5"),
        (3, "has the column 'model', a setting of the whole run"),
        (4, "has the column 'kwargs', which is no argument of StableDiffusionPipeline"),
    ]
    assert "did you mean 'height'" in str(caught.value)
    with pytest.raises(RowsError, match="'negative_prompt', which is no argument of DiTPipeline"):
        require_arguments(ROWS, inspect.signature(DiTPipeline.__call__).parameters, "DiTPipeline")


def test_columns_pass_when_the_pipeline_takes_them():
    rows = [PromptRow(1, "cat", "1", negative_prompt="x", arguments={"height": 8, "eta": 1})]
    parameters = inspect.signature(StableDiffusionPipeline.__call__).parameters
    require_arguments(rows, parameters, "a pipeline")
    require_arguments(rows, ["height", "eta", "negative_prompt"], "a pipeline")


def test_rows_travel_between_processes_when_pickled():
    rows = rows_of('{"prompt": "cat", "height": 64}\n{"prompt": "dog"}')
    assert pickle.loads(pickle.dumps(rows)) == rows
