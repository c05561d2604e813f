"""The contrastive loss against loops in float64, on one rank and on two."""

import json
import math
import os
import socket
import subprocess
import sys

import pytest
import torch
from support.references import nt_xent_in_loops
from torch.nn import functional as F

from seit.errors import UsageError
from seit.pretraining.contrast import ProjectionHead, nt_xent

TEMPERATURE = 0.2


def vectors(seed, count=6, dim=5):
    return torch.randn((count, dim), generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_the_loss_equals_loops(temperature):
    queries, keys = vectors(0), vectors(1)
    expected = nt_xent_in_loops(queries.tolist(), keys.tolist(), temperature)
    assert float(nt_xent(queries, keys, temperature=temperature)) == pytest.approx(expected, 1e-5)


def test_the_loss_of_hand_built_logits():
    # Two samples: queries at 0° and 90°, keys at 60° and 90°; cosines 1/2, 0 and √3/2, 1.
    queries = torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    keys = torch.tensor([[0.5, math.sqrt(0.75)], [0.0, 7.0]])
    logits = torch.tensor([[0.5, 0.0], [math.sqrt(0.75), 1.0]]) / TEMPERATURE
    expected = 2 * TEMPERATURE * F.cross_entropy(logits, torch.tensor([0, 1]))
    torch.testing.assert_close(nt_xent(queries, keys, temperature=TEMPERATURE), expected)
    by_hand = 0.4 * (math.log1p(math.exp(-2.5)) + math.log1p(math.exp(-(1 - 0.75**0.5) * 5))) / 2
    assert float(expected) == pytest.approx(by_hand, 1e-5)


def test_the_gradient_is_the_queries_alone_and_that_of_finite_differences():
    queries, keys = vectors(0).requires_grad_(), vectors(1).requires_grad_()
    nt_xent(queries, keys, temperature=TEMPERATURE).backward()
    assert keys.grad is None
    rows = queries.detach().double().tolist()
    for i, j in ((0, 0), (3, 4), (5, 2)):
        sides = []
        for step in (1e-5, -1e-5):
            moved = [list(row) for row in rows]
            moved[i][j] += step
            sides.append(nt_xent_in_loops(moved, keys.tolist(), TEMPERATURE))
        slope = (sides[0] - sides[1]) / 2e-5
        assert float(queries.grad[i, j]) == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_autocast_does_not_coarsen_the_loss():
    queries, keys = vectors(0, 64, 32), vectors(1, 64, 32)
    expected = nt_xent(queries, keys, temperature=TEMPERATURE)
    with torch.autocast("cpu", torch.bfloat16):
        found = nt_xent(queries, keys, temperature=TEMPERATURE)
    assert torch.equal(found, expected)


def test_the_head_ends_in_a_norm_without_weights():
    head = ProjectionHead(6, hidden_dim=12, out_dim=4)
    out = head(vectors(2, 50, 6))
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(dim=0, correction=0), torch.ones(4), atol=1e-3, rtol=0)
    sizes = [tuple(parameter.shape) for parameter in head.parameters()]
    assert sizes == [(12, 6), (12,), (12,), (12, 12), (12,), (12,), (4, 12)]


def test_a_batch_of_one_is_refused_in_training_alone():
    head = ProjectionHead(6, hidden_dim=12, out_dim=4)
    with pytest.raises(UsageError, match="batch of one sample"):
        head(vectors(0, 1, 6))
    assert head.eval()(vectors(0, 1, 6)).shape == (1, 4)


# ------------------------------------------------------------------------------- several processes

RANK = """
import json, sys
import torch
from torch import distributed as dist
from seit.pretraining.contrast import nt_xent

dist.init_process_group("gloo")
queries, keys = torch.load(sys.argv[1])
# Whatever samples a rank has, its positives are its own.
own = torch.tensor([[0, 5, 1], [2, 3, 4]][dist.get_rank()])
query = queries[own].requires_grad_()
loss = nt_xent(query, keys[own], temperature=0.2)
loss.backward()
print(json.dumps([loss.item(), own.tolist(), query.grad.tolist()]))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_make_what_one_does(tmp_path):
    queries, keys = vectors(0), vectors(1)
    torch.save((queries, keys), tmp_path / "vectors.pt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(tmp_path / "vectors.pt")],
            env={**os.environ, **shared, "OMP_NUM_THREADS": "1", "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    queries.requires_grad_()
    whole = nt_xent(queries, keys, temperature=TEMPERATURE)
    whole.backward()
    losses = []
    for output in outputs:
        loss, own, gradient = json.loads(output)
        losses.append(loss)
        # DDP averages gradients over ranks.
        torch.testing.assert_close(torch.tensor(gradient) / 2, queries.grad[own])
    assert sum(losses) / 2 == pytest.approx(whole.item(), 1e-6)
