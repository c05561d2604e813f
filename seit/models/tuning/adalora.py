"""AdaLoRA: low-rank deltas that share a rank budget (Zhang et al., arXiv 2303.10512).

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
"""Standard deviation of the initial P and Q."""
_FACTORS = ("p", "values", "q")


class Triplets(nn.Module):
    """Delta s · P diag(λ) Q of a weight, initially 0: P and Q normal, λ zero.

    A triplet is a column of P (O, R), an entry of λ (R,) and a row of Q (R, I). Each factor has
    running averages of its entries' sensitivity and uncertainty; ``kept`` marks the triplets kept
    at the last allocation.

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
        """Return the change of the layer's outputs (…, O) for its inputs (…, I)."""
        return F.linear(F.linear(x, self.q) * self.values, self.p) * self.scale

    @property
    def rank(self) -> int:
        """Number of triplets kept at the last allocation."""
        return int(self.kept.sum())

    def delta(self) -> Tensor:
        """Return the change (O, I) of the weight."""
        return (self.p * self.values) @ self.q * self.scale

    def penalty(self) -> Tensor:
        """Return ‖PᵀP − 1‖ + ‖QQᵀ − 1‖, Frobenius norms, not squared, in float32."""
        p, q = self.p.float(), self.q.float()
        one = torch.eye(len(self.values), device=p.device)
        norms: Tensor = torch.linalg.norm(p.T @ p - one) + torch.linalg.norm(q @ q.T - one)
        return norms

    @torch.no_grad()
    def follow(self, beta1: float, beta2: float) -> None:
        """Update the running averages from the weights and their gradients.

        The sensitivity of an entry is |w · ∂w|, and its uncertainty the distance from its average.
        Ignores gradients that overflowed in a skipped step.
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
        """Return the score (R,) of each triplet: λ's, plus the means of its column and its row."""
        score = {name: mean * spread for name, (mean, spread) in self._all_averages().items()}
        return score["values"] + score["p"].mean(0) + score["q"].mean(1)

    @torch.no_grad()
    def keep(self, kept: Tensor) -> None:
        """Zero λ except where ``kept`` (R,) is True."""
        self.kept.copy_(kept)
        self.values.mul_(self.kept)

    def resize(self, rank: int) -> None:
        """Resize to another number of triplets, all kept, without statistics."""
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
    """Deltas of SVD form whose rank shrinks in training to where it matters most.

    All n deltas begin with r0 triplets each. After t_i steps the least important triplets over all
    deltas lose their λ, until n · rank are left; a lost λ may come back until the next allocation.
    In the last t_f steps the allocation is fixed.

    Unlike the authors' code, this keeps exactly as many triplets as the budget allows, even among
    equal importances, and leaves none over at the end, however few steps there were. The penalty is
    that of their code and of peft, γ / 2n · Σ (‖PᵀP − 1‖ + ‖QQᵀ − 1‖), with which the paper's γ of
    0.1 to 0.3 was tuned. The paper's text has γ · Σ of the *squared* norms, a sum instead of the
    mean.
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
        """Return γ times the mean over all P and Q of the Frobenius norm of PᵀP − 1, or QQᵀ − 1."""
        if not self.config.orthogonality:
            return None
        each = torch.stack([delta.penalty() for _, _, delta in self.deltas()])
        return self.config.orthogonality * each.mean() / 2

    def budget(self, done: int, total: int) -> int:
        """Return the number of triplets to keep after ``done`` of ``total`` steps."""
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
        """Update importances, and reallocate the ranks if it is time to.

        Call it after the optimizer's step and before gradients are cleared, as the paper's code
        does: importances use the new weights and the gradients that led to them.
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
        """Drop the triplets that were not kept: fewer weights with the same effect.

        The parameters are new ones, unknown to an optimizer of the old ones.
        """
        self.load_state_dict(self.kept_state())

    @override
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a state with its ranks, which may be lower than the current ones.

        Raises:
            UsageError: names or shapes differ; nothing was changed but ranks.
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
        """Return the steps at which pruning begins and at which the allocation is fixed."""
        end = max(1, total - round(self.config.final_share * total))
        return min(round(self.config.warmup_share * total), end - 1), end

    @staticmethod
    @torch.no_grad()
    def _choose(deltas: list[Any], budget: int) -> None:
        """Keep exactly ``budget`` triplets of the highest importance; the first among equals."""
        scores = torch.cat([delta.importance() for delta in deltas])
        order = scores.argsort(descending=True, stable=True)
        kept = torch.zeros_like(scores, dtype=torch.bool)
        kept[order[:budget]] = True
        for delta, its in zip(deltas, kept.split([len(one.values) for one in deltas]), strict=True):
            delta.keep(its)
