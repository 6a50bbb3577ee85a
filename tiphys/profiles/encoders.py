"""Models that only read: embedders and rerankers, whose dimensions the database of kernels has no copy of.

An encoder answers once its input is read, so a step of it is a prefill of whole sequences. Its attention looks both
ways: every pair of tokens of a sequence, twice those that a causal model computes. It has no output head over the
vocabulary; its pooling or score is one pass over one layer's output and is not counted.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Encoder(NamedTuple):
    """Dimensions of a bidirectional Llama, from its published configuration."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward_size: int
    vocabulary: int
    max_sequence_tokens: int

    def configuration(self) -> dict[str, Any]:
        """What a causal model of these dimensions has in its `config.json`."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.hidden_size // self.heads,
            "intermediate_size": self.feed_forward_size,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.max_sequence_tokens,
            "rms_norm_eps": 1e-05,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
        }

    @property
    def head_parameters(self) -> int:
        """Of the output head that the causal model has and this one has not."""
        return self.hidden_size * self.vocabulary


_LLAMA_32_1B = Encoder(
    hidden_size=2048,
    layers=16,
    heads=32,
    kv_heads=8,
    feed_forward_size=8192,
    vocabulary=128_256,
    max_sequence_tokens=8192,
)
ENCODERS = {
    "nvidia/llama-3.2-nv-embedqa-1b-v2": _LLAMA_32_1B,
    "nvidia/llama-3.2-nv-rerankqa-1b-v2": _LLAMA_32_1B,
}
