"""Tiny text encoders with random weights, and tokenizers of letters for them."""

import string
from typing import Any

from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)
from tests import tiny
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    UMT5Config,
    UMT5EncoderModel,
)

WIDTH = 16
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def letters(*special: str) -> dict[str, int]:
    """A vocabulary of the printable characters, after the special tokens."""
    return {
        token: i
        for i, token in enumerate(
            (*special, *string.ascii_letters, *string.digits, *string.punctuation, "▁", "Ġ", "Ċ")
        )
    }


def gemma_tokenizer() -> GemmaTokenizer:
    return GemmaTokenizer(vocab=letters("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"))


def gemma() -> Any:
    sizes: dict[str, Any] = {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    return Gemma2Model(
        Gemma2Config(vocab_size=128, hidden_size=WIDTH, intermediate_size=WIDTH, **sizes)
    ).eval()


def qwen_tokenizer() -> Qwen2Tokenizer:
    tokenizer = Qwen2Tokenizer(vocab=letters("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen3() -> Any:
    sizes: dict[str, Any] = {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    return Qwen3Model(
        Qwen3Config(vocab_size=128, hidden_size=WIDTH, intermediate_size=WIDTH, **sizes)
    ).eval()


def qwen_vl() -> Any:
    text: dict[str, Any] = {
        "vocab_size": 128,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 10000.0},
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    vision: dict[str, Any] = {
        "depth": 1,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_heads": 1,
        "out_hidden_size": WIDTH,
    }
    tokens: dict[str, Any] = {
        "image_token_id": 3,
        "video_token_id": 4,
        "vision_start_token_id": 5,
        "vision_end_token_id": 6,
    }
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
    ).eval()


def umt5() -> Any:
    config = UMT5Config(
        vocab_size=4 + len(tiny.LETTERS), d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    return UMT5EncoderModel(config).eval()


def bert_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordLevel(letters("[PAD]", "[UNK]"), unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=77
    )


def bert() -> Any:
    sizes: dict[str, Any] = {
        "encoder_layers": 1,
        "encoder_ffn_dim": WIDTH,
        "encoder_attention_heads": 2,
        "head_dim": 8,
        "d_model": WIDTH,
    }
    return LDMBertModel(LDMBertConfig(vocab_size=128, **sizes)).eval()
