import json
from dataclasses import replace

import torch

from unalike.attach.run.report import (
    Certificate,
    Decoded,
    Nearest,
    Report,
    image_reports,
    nearest_neighbours,
    steps_active,
)
from unalike.guidance.run import Trace


def test_neighbour_is_the_nearest_of_batch_and_memory_when_both_are_there() -> None:
    latents = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]], [[10.0, 0.0]]])
    memory = torch.tensor([[100.0, 0.0], [10.0, 1.0]])
    assert nearest_neighbours(latents, memory) == [
        Nearest(1, "batch", 5.0),
        Nearest(0, "batch", 5.0),
        Nearest(1, "memory", 1.0),
    ]
    assert nearest_neighbours(latents[:1], None) == [None]
    assert nearest_neighbours(latents[:1], memory[:0]) == [None]
    assert nearest_neighbours(torch.zeros(2, 2), torch.zeros(1, 2)) == [
        Nearest(1, "batch", 0.0),
        Nearest(0, "batch", 0.0),
    ]


def test_sizes_are_split_by_image_when_methods_share_a_name() -> None:
    acted, idle = torch.tensor([True, False]), torch.tensor([False, False])
    first = Trace("spell", [0.1 * acted, 0.2 * acted], [1.0 * acted, 2.0 * acted], [acted, acted])
    second = Trace("spell", [0.0 * idle] * 2, [0.0 * idle] * 2, [idle, acted])
    certificate = Certificate("logo", 2.0, 1.5, 0.5, False, "s", "c")
    images = image_reports(
        [first, second], torch.tensor([0, 1]), ["a", "b"], [[certificate], []], [None, [0.25, 1.0]]
    )
    assert [image.certificate for image in images] == [certificate, None]
    assert [image.prompt for image in images] == ["a", "b"]
    assert images[0].corrections == {"spell": [1.0, 2.0], "spell-2": [0.0, 0.0]}
    assert images[0].corrections_of_x0["spell"] == torch.tensor([0.1, 0.2]).tolist()
    assert images[0].active == {"spell": 1.0, "spell-2": 0.5}
    assert images[1].active == {"spell": 0.0, "spell-2": 0.0}
    assert [image.regions for image in images] == [{"spell-2": 0.25}, {"spell-2": 1.0}]


def test_report_is_json_when_turned_into_a_dictionary() -> None:
    certificate = Certificate("a", 2.0, 1.0, 1.0, True, "s", "c", 3, Decoded("b", 0.5, True))
    image = replace(
        image_reports([], torch.tensor([3]), None, [[certificate]], [])[0],
        nearest=Nearest(0, "memory", 1.0),
    )
    found = json.loads(json.dumps(Report(images=[image], steps=4, space="s p/1").to_dict()))
    assert found["images"][0]["nearest"] == {"index": 0, "source": "memory", "distance": 1.0}
    assert found["images"][0]["certificate"]["moved"] is True
    assert found["images"][0]["certificate"]["decoded"] == {
        "nearest_id": "b",
        "distance": 0.5,
        "inside": True,
    }
    assert (
        found["images"][0]["prompt"],
        found["images"][0]["group"],
        found["steps"],
        found["finished"],
    ) == (None, 3, 4, True)


def test_steps_are_counted_once_when_two_methods_of_the_name_act() -> None:
    zeros = [torch.zeros(2)] * 3
    first = Trace("spell", zeros, zeros, [torch.tensor([True, False])] * 3)
    second = Trace(
        "spell", zeros, zeros, [torch.tensor([True, True]), *[torch.tensor([False, False])] * 2]
    )
    other = Trace("sparke", zeros, zeros, [torch.tensor([True, True])] * 3)
    assert steps_active([first, second, other], "spell", 2) == [3, 1]
    assert steps_active([other], "spell", 2) == [0, 0]
