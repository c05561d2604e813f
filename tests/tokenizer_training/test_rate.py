"""The rate of codes in the loss of a tokenizer."""

import torch
from torch import Tensor

from seit.tokenizer_training.rate import RateHead

B, C, H, W, K = 2, 3, 5, 6, 7


def quantized(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return latents, their nearest codes, the ids and the codebook."""
    generator = torch.Generator().manual_seed(seed)
    codebook = torch.randn(K, C, generator=generator)
    encoded = torch.randn(B, C, H, W, generator=generator, requires_grad=True)
    flat = encoded.detach().permute(0, 2, 3, 1).reshape(-1, C)
    ids = torch.cdist(flat, codebook).argmin(1).view(B, H, W)
    codes = codebook[ids].permute(0, 3, 1, 2)
    return encoded, encoded + (codes - encoded).detach(), ids, codebook


def test_a_place_sees_only_codes_before_it():
    torch.manual_seed(0)
    head = RateHead(C, K)
    _, codes, _, _ = quantized()
    plain = head(codes.detach()).view(B, H, W, K)
    for row, column in ((0, 0), (2, 3), (4, 5)):
        changed = codes.detach().clone()
        changed[:, :, row, column] += 1.0
        differs = (head(changed).view(B, H, W, K) != plain).any(-1)[0]
        later = torch.zeros(H, W, dtype=torch.bool)
        later[row, column + 1 : column + 3] = True
        later[row + 1 : row + 3, max(0, column - 2) : column + 3] = True
        assert torch.equal(differs, later)


def test_rate_is_the_cross_entropy_of_the_chosen_codes():
    torch.manual_seed(0)
    head = RateHead(C, K)
    encoded, codes, ids, codebook = quantized()
    loss = head.loss(codes, encoded, ids, codebook)
    expected = torch.nn.functional.nll_loss(head(codes), ids.flatten())
    assert torch.allclose(loss, expected, atol=1e-6)


def test_a_latent_between_two_codes_moves_to_the_cheaper():
    head = RateHead(1, 2)
    with torch.no_grad():
        head.logits.weight.zero_()
        head.logits.bias.copy_(torch.tensor([2.0, 0.0]))
    codebook = torch.tensor([[-1.0], [1.0]])
    encoded = torch.full((1, 1, 2, 2), 0.1, requires_grad=True)
    ids = torch.ones(1, 2, 2, dtype=torch.int64)
    head.loss(torch.ones(1, 1, 2, 2), encoded, ids, codebook).backward()
    assert encoded.grad is not None
    assert bool((encoded.grad > 0).all())


def test_soft_assignments_match_a_reference_in_float64():
    torch.manual_seed(0)
    head = RateHead(C, K)
    encoded, codes, ids, codebook = quantized(1)
    head.loss(codes.detach(), encoded, ids, codebook).backward()
    points = encoded.detach().permute(0, 2, 3, 1).reshape(-1, C).double().requires_grad_()
    distance = torch.cdist(points, codebook.double()).square()
    error = distance.detach().gather(1, ids.view(-1, 1)).mean()
    soft = torch.softmax(-distance / (0.25 * error), 1)
    log_p = head(codes.detach()).detach().double()
    (-(soft * log_p).sum(1).mean()).backward()
    assert points.grad is not None
    assert encoded.grad is not None
    found = encoded.grad.permute(0, 2, 3, 1).reshape(-1, C)
    assert torch.allclose(found.double(), points.grad, atol=1e-6)
