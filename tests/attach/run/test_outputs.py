import numpy as np
import pytest
import torch
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from PIL import Image

from unalike.attach.run.outputs import blanked, pixels, taken
from unalike.errors import UnsupportedError

COLOURS = ["red", "lime", "blue", "white"]


def pictures(*colours: str) -> list[Image.Image]:
    return [Image.new("RGB", (4, 2), colour) for colour in colours]


def colour(image: Image.Image) -> object:
    return image.getpixel((0, 0))


def test_images_come_from_their_runs_when_several_are_merged() -> None:
    first = StableDiffusionPipelineOutput(
        images=pictures("red", "lime"), nsfw_content_detected=[False, False]
    )
    second = StableDiffusionPipelineOutput(
        images=pictures("blue", "white"), nsfw_content_detected=[True, True]
    )
    merged = taken([first, second], [2, 2], [(1, 0), (0, 1)])
    assert type(merged) is StableDiffusionPipelineOutput
    assert [colour(image) for image in merged.images] == [(0, 0, 255), (0, 255, 0)]
    assert merged.nsfw_content_detected == [True, False]
    assert [colour(image) for image in first.images] == [(255, 0, 0), (0, 255, 0)]


@pytest.mark.parametrize("make", [torch.tensor, np.array])
def test_rows_keep_their_kind_and_type_when_arrays_are_merged(make) -> None:
    parts = [make([[1, 1], [2, 2]]), make([[3, 3], [4, 4]])]
    (merged, nothing) = taken([(parts[0], None), (parts[1], None)], [2, 2], [(0, 0), (1, 1)])
    assert nothing is None
    assert type(merged) is type(parts[0])
    assert merged.dtype == parts[0].dtype
    assert merged.tolist() == [[1, 1], [4, 4]]
    assert parts[0].tolist() == [[1, 1], [2, 2]]


def test_output_is_the_very_same_when_all_images_are_of_one_run() -> None:
    outputs = [
        ImagePipelineOutput(images=pictures("red")),
        ImagePipelineOutput(images=pictures("lime")),
    ]
    assert taken(outputs, [1, 1], [(1, 0)]) is outputs[1]


def test_images_are_black_when_blank() -> None:
    output = StableDiffusionPipelineOutput(
        images=pictures("red", "lime"), nsfw_content_detected=[True, True]
    )
    blank = blanked(output, [1], 2)
    assert [colour(image) for image in blank.images] == [(255, 0, 0), (0, 0, 0)]
    assert blank.images[1].size == (4, 2)
    assert blank.nsfw_content_detected == [True, True]
    assert colour(output.images[1]) == (0, 255, 0)


@pytest.mark.parametrize("make", [torch.ones, np.ones])
def test_rows_are_zero_when_arrays_are_blank(make) -> None:
    (blank,) = blanked((make((3, 2)),), [0, 2], 3)
    assert blank.tolist() == [[0, 0], [1, 1], [0, 0]]


def test_all_frames_are_black_when_a_video_is_blank() -> None:
    (blank,) = blanked(([pictures("red", "lime"), pictures("red", "lime")],), [0], 2)
    assert [[colour(frame) for frame in video] for video in blank] == [
        [(0, 0, 0)] * 2,
        [(255, 0, 0), (0, 255, 0)],
    ]


@pytest.mark.parametrize("part", [torch.ones(3, 2), pictures("red"), {"a": 1}])
def test_output_is_refused_when_its_parts_are_no_images(part) -> None:
    with pytest.raises(UnsupportedError, match="for 2 images"):
        blanked((part,), [0], 2)
    with pytest.raises(UnsupportedError, match="for 2 images"):
        taken([(part,), (part,)], [2, 2], [(0, 0), (1, 1)])


def test_pixels_are_the_same_when_the_output_is_of_another_type() -> None:
    images = pictures(*COLOURS)
    array = np.stack([np.asarray(image) for image in images]) / 255
    expected = torch.from_numpy(array).permute(0, 3, 1, 2).float()
    for output in (
        ImagePipelineOutput(images=images),
        (images, None),
        (array,),
        (expected.half(),),
    ):
        found = pixels(output, 4)
        assert found is not None
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "made",
    [
        torch.rand(2, 4, 8, 8),
        torch.rand(3, 3, 8, 8),
        torch.full((2, 3, 8, 8), 1.5),
        torch.full((2, 3, 8, 8), torch.nan),
        [["a"], ["b"]],
    ],
)
def test_there_are_no_pixels_when_the_output_is_something_else(made) -> None:
    assert pixels((made,), 2) is None
