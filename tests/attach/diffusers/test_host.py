import pytest
from PIL import Image
from tests import tiny

from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.vae import encode_images
from unalike.errors import OptionError, UnsupportedError
from unalike.pipelines import MODELS, load


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "dit"])
def test_size_is_that_of_what_is_drawn_when_none_is_asked_for(name, tmp_path):
    pipe = tiny.load(tiny.write(name, tmp_path))
    drawn = {"class_labels": [0]} if name == "dit" else {"prompt": "a"}
    image = pipe(**drawn, num_inference_steps=1).images[0]
    assert Host(pipe).image_size() == (image.height, image.width)


@pytest.mark.parametrize("name", ["emoji", "digits"])
def test_size_is_that_of_the_catalogue_when_a_model_is_shipped(name):
    pipe = load(name)
    assert Host(pipe).image_size() == MODELS[name].size


def test_size_is_refused_when_the_autoencoder_would_change_it(tiny_sd):
    assert Host(tiny_sd).image_size((24, 16)) == (24, 16)
    assert encode_images(tiny_sd, [Image.new("RGB", (9, 7))], size=(24, 16)).shape == (1, 4, 12, 8)
    for size in ((25, 16), (16, 15), (0, 16), (-2, 16)):
        with pytest.raises(
            OptionError, match=r"multiples of 2 for height and width, as in size=\(512, 512\)"
        ):
            Host(tiny_sd).image_size(size)


def test_size_must_be_given_when_the_pipeline_does_not_tell(tiny_sd):
    tiny_sd.unet = None
    with pytest.raises(UnsupportedError, match=r"size=\(512, 512\)"):
        Host(tiny_sd).image_size()
