import importlib
import importlib.util
import sys
import types

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny
from transformers import CLIPModel, Dinov2Model
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from unalike.attach.diffusers import vae as latents
from unalike.errors import NumericsError, OptionError, StoreError, UnsupportedError
from unalike.extractors import EXTRACTORS, extractor
from unalike.extractors.clip import MEAN, STD, Clip
from unalike.kernels import Cosine
from unalike.models.emoji import load_images, truth

SIZES = [(20, 33), (16, 16), (9, 12), (224, 300)]


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["pixels", "emoji", "digits", "latents", "clip", "dinov2", "sscd"])
def name(request, tiny_sd_folder, clip_folder, dinov2_folder, sscd_file):
    """Each extractor that needs no extra, with a tiny network where it has one."""
    folders = {
        "latents": tiny_sd_folder,
        "clip": clip_folder,
        "dinov2": dinov2_folder,
        "sscd": sscd_file,
    }
    return (
        f"{request.param}:{folders[request.param]}" if request.param in folders else request.param
    )


def test_features_are_the_same_when_the_batch_size_or_the_neighbours_change(name):
    images = noise(3, 3, 24, 20)
    one_by_one, together = (
        extractor(name, device="cpu", batch_size=size).features(images) for size in (1, 8)
    )
    assert together.dtype == torch.float32
    assert len(together) == 3
    torch.testing.assert_close(one_by_one, together, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1], rtol=1e-3)


def test_same_size_of_features_comes_of_images_of_any_size(name):
    own = extractor(name, device="cpu")
    assert len({own.features(noise(1, 3, *size)).shape for size in SIZES}) == 1


def test_gradients_reach_the_pixels_when_features_are_differentiated(name):
    images = noise(2, 3, 30, 20).requires_grad_()
    extractor(name, device="cpu").embed(images).square().sum().sqrt().backward()
    assert images.grad is not None
    assert (images.grad != 0).float().mean() > 0.3


def test_fingerprint_tells_networks_apart_and_holds_no_path(name):
    own = extractor(name, device="cpu")
    assert own.fingerprint == extractor(name, device="cpu").fingerprint
    assert "/" not in own.fingerprint.removeprefix(f"{own.name}/")
    assert not any(
        folder in text
        for folder in name.split(":")[1:]
        for text in (own.fingerprint, own.basis, own.resizing)
    )
    if own.model is not None and own.name != "sscd":  # which goes by its file
        before = own.fingerprint
        weight = next(p for _, p in sorted(own.model.named_parameters()) if p.ndim >= 2)
        weight.neg_()
        assert own.fingerprint != before


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "pixels / 255"),
        (torch.zeros(2, 1, 8, 8), "n, 3, h, w"),
        (torch.zeros(0, 3, 8, 8), "n, 3, h, w"),
        (torch.full((1, 3, 8, 8), 255.0), "0 to 1"),
        (torch.full((1, 3, 8, 8), torch.nan), "0 to 1"),
    ],
)
def test_images_are_refused_when_they_are_not_in_the_unit_range(images, message):
    with pytest.raises(OptionError, match=message):
        extractor("pixels", device="cpu").features(images)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pixel", "did you mean 'pixels'"),
        ("nonsense", "allowed: pixels, emoji, emoji-copies, digits, latents"),
        ("pixels:folder", "allowed: pixels"),
        ("clip:", "allowed: clip:FOLDER or clip"),
    ],
)
def test_names_are_refused_when_they_are_not_in_the_table(name, message):
    with pytest.raises(OptionError, match=message):
        extractor(name)


def test_device_is_refused_when_it_is_not_there():
    for device in ("cpuu", "cuda:99"):
        with pytest.raises(OptionError, match=f"device is '{device}'"):
            extractor("pixels", device=device)


def test_batch_of_none_is_refused():
    with pytest.raises(OptionError, match="batch_size is 0"):
        extractor("pixels", batch_size=0)


@pytest.mark.parametrize("kind", ["clip", "dinov2", "latents"])
def test_folder_is_refused_when_it_holds_something_else(kind, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StoreError, match=f"features={kind}:FOLDER"):
        extractor(f"{kind}:{tmp_path}", device="cpu")


def test_file_of_sscd_is_refused_when_it_is_missing_or_no_program(tmp_path):
    for name in ("sscd", f"sscd:{tmp_path / 'none.pt'}"):
        with pytest.raises(OptionError, match=r"no such file; .* as in features='?sscd:sscd_disc"):
            extractor(name, device="cpu")
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(StoreError, match="is no TorchScript program"):
        extractor(f"sscd:{tmp_path / 'text.pt'}", device="cpu")


def test_descriptors_of_sscd_are_unit_vectors_and_go_by_their_file(sscd_file, tmp_path):
    own = extractor(f"sscd:{sscd_file}", device="cpu")
    found = own.features(noise(3, 3, 40, 40))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert own.fingerprint.startswith("sscd/TorchScript-")
    copy = tmp_path / "other name.pt"
    copy.write_bytes(sscd_file.read_bytes())
    assert extractor(f"sscd:{copy}", device="cpu").fingerprint == own.fingerprint


def test_source_is_refused_when_it_is_neither_a_folder_nor_a_hub_id(tmp_path):
    with pytest.raises(OptionError, match="Without any download: features='pixels'"):
        extractor(f"clip:{tmp_path / 'no' / 'such' / 'folder'}", device="cpu")


# pixels and emoji


def test_pixel_distance_is_the_root_mean_square_when_sizes_are_whole_multiples():
    images = noise(2, 3, 32, 32)
    own = extractor("pixels", device="cpu")
    X = own.features(images.repeat_interleave(2, 2).repeat_interleave(2, 3))
    expected = (images[0] - images[1]).square().mean().sqrt()
    torch.testing.assert_close((X[0] - X[1]).norm() / own.unit, expected)


def test_emoji_features_know_a_picture_again_when_it_is_shifted():
    pictures = load_images()[::397].float() / 255
    own = extractor("emoji", device="cpu")
    X, shifted = own.features(pictures), own.features(pictures.roll((1, -1), (2, 3)))
    nearest = torch.cdist(shifted, X).argmin(dim=1)
    assert (nearest == torch.arange(len(X))).float().mean() > 0.95
    torch.testing.assert_close(X.norm(dim=1) / own.unit, torch.ones(len(X)))


def test_plain_pictures_are_alike_and_unlike_all_others_when_embedded_as_emoji():
    heart = load_images()[truth("red heart")] / 255
    X = extractor("emoji", device="cpu").features(
        torch.cat([torch.full((1, 3, 64, 64), 0.7), torch.zeros(1, 3, 64, 64), heart])
    )
    torch.testing.assert_close(Cosine()(X, X), torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]))


# latents


def test_latents_are_those_of_guidance_when_the_size_is_the_models_own(tiny_sd_folder, tiny_sd):
    images = noise(2, 3, 16, 16)
    X = extractor(f"latents:{tiny_sd_folder}", device="cpu").features(images)
    torch.testing.assert_close(X, latents.encode_images(tiny_sd, images).flatten(1))


def test_only_the_autoencoder_is_loaded_when_the_folder_is_a_pipeline(tiny_sd_folder):
    own = extractor(f"latents:{tiny_sd_folder}", device="cpu")
    assert isinstance(own.model, diffusers.AutoencoderKL)


def test_shipped_model_has_latents_when_named():
    assert extractor("latents:emoji", device="cpu").features(noise(1, 3, 64, 64)).shape == (1, 1024)


def test_pipeline_is_refused_when_it_has_no_autoencoder(tmp_path):
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    )
    diffusers.DDIMPipeline(unet, tiny.ddim()).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError, match="no autoencoder for images"):
        extractor(f"latents:{tmp_path}", device="cpu")


# CLIP


@pytest.mark.parametrize(("height", "width"), [*SIZES, (33, 20), (300, 224), (500, 341)])
def test_preprocessing_is_that_of_transformers_when_pixels_are_whole(clip_folder, height, width):
    smooth = np.asarray(
        Image.fromarray((noise(6, 6, 3, seed=height).numpy() * 255).astype(np.uint8)).resize(
            (width, height)
        )
    )
    for pixels in (smooth, (noise(height, width, 3).numpy() * 255).astype(np.uint8)):
        processor = CLIPImageProcessorPil(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        )
        expected = torch.as_tensor(np.stack(processor(Image.fromarray(pixels))["pixel_values"]))
        images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
        prepared = Clip(str(clip_folder), device="cpu").prepared(images)
        levels = (prepared - expected).abs() * torch.tensor(STD).view(3, 1, 1) * 255
        assert (
            levels.max() <= 1.01
        )  # Pillow rounds to whole levels of 255 after each of its two passes


def test_constants_are_those_of_transformers():
    assert (list(MEAN), list(STD)) == (
        list(CLIPImageProcessorPil.image_mean),
        list(CLIPImageProcessorPil.image_std),
    )


def test_embeddings_are_those_of_the_model_when_it_is_called_itself(clip_folder, tmp_path):
    own, model = Clip(str(clip_folder), device="cpu"), CLIPModel.from_pretrained(clip_folder).eval()
    images = noise(2, 3, 16, 16)
    tokens = tiny.clip_tokenizer(tmp_path)(["cat", "a dog"], padding=True, return_tensors="pt")
    with torch.no_grad():
        pixels = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        result = model(pixel_values=pixels, **tokens)
    X, Y = own.features(images), own.prompt_features(["cat", "a dog"])
    torch.testing.assert_close(X / X.norm(dim=1, keepdim=True), result.image_embeds)
    torch.testing.assert_close(Y / Y.norm(dim=1, keepdim=True), result.text_embeds)


def test_prompt_embedding_is_the_same_when_others_are_longer_and_cut_off(clip_folder):
    own = Clip(str(clip_folder), device="cpu", batch_size=8)
    alone, together = own.prompt_features(["cat"]), own.prompt_features(["cat", "dog" * 40])
    torch.testing.assert_close(alone[0], together[0])


def test_only_clip_has_prompts(clip_folder):
    assert extractor("pixels", device="cpu").prompt_features(["cat"]) is None


# DINOv2


def test_class_token_is_that_of_the_model_when_it_is_called_itself(dinov2_folder):
    images = noise(2, 3, 224, 224)
    pixels = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    with torch.no_grad():
        expected = (
            Dinov2Model.from_pretrained(dinov2_folder)
            .eval()(pixel_values=pixels)
            .last_hidden_state[:, 0]
        )
    torch.testing.assert_close(
        extractor(f"dinov2:{dinov2_folder}", device="cpu").features(images), expected
    )


# Inception


def test_command_that_installs_it_is_named_when_torch_fidelity_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'unalike\[metrics\]'"):
        extractor("inception", device="cpu")


@pytest.fixture
def torch_fidelity(monkeypatch):
    """The real module of the network; the rest of the package is not imported, because that needs
    torchvision, which is not installed.
    """
    spec = importlib.util.find_spec("torch_fidelity")
    if spec is None:
        pytest.skip("torch-fidelity is not installed")
    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(spec.submodule_search_locations or [])
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    from torch_fidelity import feature_extractor_inceptionv3  # pyright: ignore[reportMissingImports]

    yield feature_extractor_inceptionv3
    for name in [n for n in sys.modules if n.startswith("torch_fidelity.")]:
        del sys.modules[name]


def test_weights_are_asked_for_when_they_cannot_be_downloaded(
    torch_fidelity, monkeypatch, tmp_path
):
    monkeypatch.setattr(
        torch_fidelity, "URL_INCEPTION_V3", (tmp_path / "no" / "weights-6726825d.pth").as_uri()
    )
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(StoreError, match="put the file into"):
        extractor("inception", device="cpu")


def test_inception_features_are_those_of_torch_fidelity_when_the_weights_are_in_its_cache(
    torch_fidelity, monkeypatch, tmp_path
):
    network = torch_fidelity.FeatureExtractorInceptionV3

    class Untrained(network):
        def load_state_dict(self, *_, **__):
            return None

    with torch.random.fork_rng(), monkeypatch.context() as patch:
        torch.manual_seed(0)
        patch.setattr(torch_fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        untrained = Untrained("inception-v3-compat", ["2048"])
    weights = tmp_path / "checkpoints" / torch_fidelity.URL_INCEPTION_V3.rpartition("/")[2]
    weights.parent.mkdir()
    torch.save(untrained.state_dict(), weights)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    images = noise(1, 3, 20, 30)
    found = extractor("inception", device="cpu").features(images)
    torch.testing.assert_close(found, untrained((255 * images).round().to(torch.uint8))[0])
    assert found.shape == (1, 2048)


def test_every_row_says_what_it_sees_and_has_a_home():
    for row in EXTRACTORS.values():
        module, _, name = row.home.partition(":")
        assert row.summary
        if name != "Inception":  # whose library need not be there
            assert isinstance(getattr(importlib.import_module(module), name), type)


def test_prompt_features_are_refused_when_they_are_not_finite(clip_folder):
    own = extractor(f"clip:{clip_folder}", device="cpu")
    own.model.text_projection.weight.data.fill_(torch.inf)
    with pytest.raises(NumericsError, match="features 'clip' of prompt 0 of the batch have NaN"):
        own.prompt_features(["cat"])
