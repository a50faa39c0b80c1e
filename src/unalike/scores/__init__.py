"""Diversity scores of a set of samples, alone or given their prompts.

All rest on one quantity: the Rényi entropy of order `q` of a normalised kernel matrix `K` (n, n),

    H_q(K) = log(Σ λ^q) / (1 - q),    H_1 = -Σ λ log λ,    H_∞ = -log max λ,

with `λ` the eigenvalues of `K / n`. It is 0 for identical samples and `log n` for samples with
nothing in common. Scores are its exponentials: effective numbers of samples.

- Exact, O(n²) memory, O(n³) time: `vendi`, `rke`, `conditional_vendi`, `conditional_rke`,
  `information_vendi`, from features (n, …), with rows flattened, and a kernel, or from finished
  Gram matrices.
- For many samples, memory independent of n: `approximate_vendi`, `approximate_conditional_vendi`,
  `approximate_information_vendi`, and `VendiStream`, `ConditionalVendiStream`,
  `InformationVendiStream` that take samples as they come and can be merged. Each gives an
  `Estimate`: a value with its error. With the cosine kernel they are exact too.

The kernel is `Cosine()` unless another one is passed: the Vendi score's own choice, and free of a
bandwidth, so that figures of different sets can be compared. With `Gaussian`, which the RKE papers
use, only figures of the same bandwidth can; `median_bandwidth` gives one. Everything is computed in
float64.
"""

from unalike.scores.approximate import (
    Estimate,
    approximate_conditional_vendi,
    approximate_information_vendi,
    approximate_vendi,
)
from unalike.scores.bandwidth import median_bandwidth
from unalike.scores.entropies import entropy
from unalike.scores.exact import conditional_rke, conditional_vendi, information_vendi, rke, vendi
from unalike.scores.streaming import ConditionalVendiStream, InformationVendiStream, VendiStream

__all__ = [
    "ConditionalVendiStream",
    "Estimate",
    "InformationVendiStream",
    "VendiStream",
    "approximate_conditional_vendi",
    "approximate_information_vendi",
    "approximate_vendi",
    "conditional_rke",
    "conditional_vendi",
    "entropy",
    "information_vendi",
    "median_bandwidth",
    "rke",
    "vendi",
]
