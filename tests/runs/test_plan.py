import pytest

from unalike.errors import OptionError
from unalike.runs.plan import batches, planned_images, planned_rows, with_items
from unalike.runs.rows import PromptRow


def row(line, prompt, **given):
    plain = {"n": None, "seed": None, "negative_prompt": None, "group": None, "arguments": {}}
    return PromptRow(**{**plain, "line": line, "prompt": prompt, "id": str(line), **given})


def test_rows_are_drawn_in_order_with_their_own_numbers_and_seeds():
    rows = [row(1, "cat"), row(2, "dog", n=1, seed=9, arguments={"height": 64})]
    plan = planned_rows(rows, 2, 3, 100)
    assert [(p.index, p.prompt, p.prompt_index, p.seed) for p in plan] == [
        (0, "cat", 0, 3),
        (1, "cat", 0, 4),
        (2, "dog", 1, 9),
    ]
    assert plan[2].arguments == {"height": 64}


def test_a_run_is_refused_when_it_has_too_many_images():
    with pytest.raises(OptionError, match=r"asks for 101 images; allowed: at most 100"):
        planned_rows([row(1, "cat", n=101)], 1, 0, 100)


def test_an_item_is_the_same_wherever_the_image_is_in_the_run():
    first = with_items(planned_images(["cat", "dog"], 2, 0), "model")
    second = with_items(planned_images(["dog"], 3, 1), "model")
    assert first[3].item == second[0].item
    assert len({p.item for p in [*first, *second]}) == 6
    assert with_items([first[0]], "other model")[0].item != first[0].item


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "dog"},
        {"seed": 1},
        {"negative_prompt": "blue"},
        {"group": "a"},
        {"arguments": {"height": 64}},
    ],
)
def test_an_item_differs_when_anything_of_the_image_does(changes):
    plain, changed = (
        planned_rows([row(1, **given)], 1, 0, 9)
        for given in ({"prompt": "cat"}, {"prompt": "cat", **changes})
    )
    assert with_items(plain, "m")[0].item != with_items(changed, "m")[0].item


def test_images_are_drawn_together_when_their_arguments_are_equal():
    large, small = {"height": 128}, {"height": 64}
    rows = [
        row(1, "a", n=3, arguments=large),
        row(2, "b", n=2, arguments={**large}),
        row(3, "c", n=1, arguments=small),
        row(4, "d", n=1, arguments=small, negative_prompt="blue"),
    ]
    plan = planned_rows(rows, 1, 0, 100)
    assert [[p.index for p in batch] for batch in batches(plan, 4)] == [[0, 1, 2, 3], [4], [5], [6]]
