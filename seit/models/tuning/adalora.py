"""AdaLoRA: low-rank deltas that share a budget of ranks (Zhang et al., arXiv 2303.10512).

Legend: I inputs and O outputs of a layer or of a third of it, R rank, n deltas, T steps.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from seit.errors import UsageError
from seit.models.tuning.config import TuningConfig
from seit.models.tuning.lora import Lora

_STD = 0.02
"""Standard deviation of the normal draws that P and Q start with."""
_FACTORS = ("p", "values", "q")


class Triplets(nn.Module):
    """The delta s · P diag(λ) Q of a weight, 0 at first: P and Q normal, λ zero.

    A triplet is a column of P (O, R), an entry of λ (R,) and a row of Q (R, I). Beside each factor
    lie the running averages of its entries' sensitivity and uncertainty; ``kept`` tells which
    triplets were kept at the last choice.

    Args:
        inputs: I.
        outputs: O.
        rank: R.
        scale: s.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, *, scale: float) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.randn(outputs, rank) * _STD)
        self.values = nn.Parameter(torch.zeros(rank))
        self.q = nn.Parameter(torch.randn(rank, inputs) * _STD)
        self.scale = scale
        self.kept: Tensor
        self.register_buffer("kept", torch.ones(rank, dtype=torch.bool))
        for name in _FACTORS:
            zeros = torch.zeros_like(getattr(self, name).detach())
            self.register_buffer(f"sensitivity_{name}", zeros)
            self.register_buffer(f"uncertainty_{name}", zeros.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Inputs of the layer (…, I) → the change of its outputs (…, O)."""
        return F.linear(F.linear(x, self.q) * self.values, self.p) * self.scale

    @property
    def rank(self) -> int:
        """Number of triplets kept at the last choice."""
        return int(self.kept.sum())

    def delta(self) -> Tensor:
        """The change (O, I) of the weight."""
        return (self.p * self.values) @ self.q * self.scale

    def penalty(self) -> Tensor:
        """‖PᵀP − 1‖ + ‖QQᵀ − 1‖, Frobenius norms, not squared, in float32."""
        p, q = self.p.float(), self.q.float()
        one = torch.eye(len(self.values), device=p.device)
        norms: Tensor = torch.linalg.norm(p.T @ p - one) + torch.linalg.norm(q @ q.T - one)
        return norms

    @torch.no_grad()
    def follow(self, beta1: float, beta2: float) -> None:
        """Take the weights and their gradients into the running averages.

        The sensitivity of an entry is |w · ∂w|, and its uncertainty how far that is from its
        average. Gradients that overflowed, of a step that was passed over, are left out.
        """
        for name in _FACTORS:
            weight = getattr(self, name)
            if weight.grad is None:
                continue
            mean, spread = self._averages(name)
            now = (weight * weight.grad).abs()
            now = torch.where(now.isfinite(), now, mean)
            mean.lerp_(now, 1 - beta1)
            spread.lerp_((now - mean).abs(), 1 - beta2)

    def importance(self) -> Tensor:
        """The score (R,) of each triplet: λ's, and the means of its column's and its row's."""
        score = {name: mean * spread for name, (mean, spread) in self._all_averages().items()}
        return score["values"] + score["p"].mean(0) + score["q"].mean(1)

    @torch.no_grad()
    def keep(self, kept: Tensor) -> None:
        """Set λ to zero but where ``kept`` (R,) is True."""
        self.kept.copy_(kept)
        self.values.mul_(self.kept)

    def resize(self, rank: int) -> None:
        """Make room for another number of triplets, all kept, of which nothing is known."""
        device, dtype = self.values.device, self.values.dtype
        fresh = Triplets(self.q.shape[1], self.p.shape[0], rank, scale=self.scale)
        fresh.to(device, dtype)
        for key, value in fresh.named_parameters():
            value.requires_grad_(getattr(self, key).requires_grad)
            setattr(self, key, value)
        for key, buffer in fresh.named_buffers():
            setattr(self, key, buffer)

    def _averages(self, name: str) -> tuple[Tensor, Tensor]:
        return getattr(self, f"sensitivity_{name}"), getattr(self, f"uncertainty_{name}")

    def _all_averages(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: self._averages(name) for name in _FACTORS}


class AdaLora(Lora):
    """Deltas of SVD form that begin with more rank than they end with, where it matters most.

    All n deltas begin with r0 triplets each. After t_i steps those of least importance, over all
    deltas together, lose their λ, at last all but n · rank; a λ that was lost may come back until
    the next choice. In the last t_f steps the choice stays.

    What differs from the authors' code: exactly as many triplets are kept as the budget says, also
    where importances are equal; at the end of the steps no triplet is over, however few steps there
    were. The penalty is the code's and peft's, γ / 2n · Σ (‖PᵀP − 1‖ + ‖QQᵀ − 1‖), as the γ of 0.1
    to 0.3 that the paper names were found with it. Its text says otherwise: γ · Σ of the *squared*
    norms, a sum instead of the mean.
    """

    drops_ranks = True

    @override
    @classmethod
    def reinterpreted(cls, config: TuningConfig) -> list[str]:
        return ["tuning.orthogonality"] if config.orthogonality > 0 else []

    @override
    def make_delta(self, inputs: int, outputs: int, config: TuningConfig) -> nn.Module:
        initial = config.begun_rank
        return Triplets(inputs, outputs, initial, scale=config.begun_scale)

    @override
    def penalty(self) -> Tensor | None:
        """γ times the mean over all P and Q of the Frobenius norm of PᵀP − 1, or QQᵀ − 1."""
        if not self.config.orthogonality:
            return None
        each = torch.stack([delta.penalty() for _, _, delta in self.deltas()])
        return self.config.orthogonality * each.mean() / 2

    def budget(self, done: int, total: int) -> int:
        """Triplets that may stay after ``done`` of ``total`` steps."""
        config, number = self.config, sum(1 for _ in self.deltas())
        first, last = config.begun_rank * number, config.rank * number
        begin, end = self._phases(total)
        if done >= end:
            return last
        if done <= begin:
            return first
        left = 1 - (done - begin) / (end - begin)
        return int(last + (first - last) * left**3)

    @override
    def after_update(self, step: int, total: int) -> None:
        """Note importances, and choose what stays where it is time to.

        Call it after the optimiser's step and before gradients are forgotten, as the paper's code
        does: importances are of the new weights and the gradients that led to them.
        """
        done = step + 1
        begin, end = self._phases(total)
        deltas = [delta for _, _, delta in self.deltas()]
        if done <= end:
            for delta in deltas:
                delta.follow(self.config.beta1, self.config.beta2)
        if done > end:
            for delta in deltas:
                delta.keep(delta.kept)
        elif done == end or (done > begin and done % self.config.mask_every == 0):
            self._choose(deltas, self.budget(done, total))

    @override
    def kept_state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for layer, target, delta in self.deltas():
            kept, prefix = delta.kept, f"{layer}.lora.{target}"
            state[f"{prefix}.p"] = delta.p.detach()[:, kept]
            state[f"{prefix}.values"] = delta.values.detach()[kept]
            state[f"{prefix}.q"] = delta.q.detach()[kept]
        return state

    def compact(self) -> None:
        """Drop the triplets that were not kept: fewer weights of the same effect.

        The parameters are new ones, of which an optimiser of the old ones does not know.
        """
        self.load_state_dict(self.kept_state())

    @override
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state, with its ranks, which may be fewer than those here.

        Raises:
            UsageError: names or shapes are others; nothing was changed but ranks.
        """
        for layer, target, delta in self.deltas():
            values = state.get(f"{layer}.lora.{target}.values")
            if values is None or values.shape == delta.values.shape:
                continue
            if values.ndim != 1 or len(values) > self.config.begun_rank:
                raise UsageError(
                    f"the state of adalora has {tuple(values.shape)} values of {layer}, and up to "
                    f"{self.config.begun_rank} were expected; load it with the settings that it "
                    "was saved with"
                )
            delta.resize(len(values))
        super().load_state_dict(state)

    def _phases(self, total: int) -> tuple[int, int]:
        """The step up to which nothing is taken away, and that from which the choice stays."""
        end = max(1, total - round(self.config.final_share * total))
        return min(round(self.config.warmup_share * total), end - 1), end

    @staticmethod
    @torch.no_grad()
    def _choose(deltas: list[Any], budget: int) -> None:
        """Keep the triplets of the highest importance, of equal ones the first; exactly so many."""
        scores = torch.cat([delta.importance() for delta in deltas])
        order = scores.argsort(descending=True, stable=True)
        kept = torch.zeros_like(scores, dtype=torch.bool)
        kept[order[:budget]] = True
        for delta, its in zip(deltas, kept.split([len(one.values) for one in deltas]), strict=True):
            delta.keep(its)
