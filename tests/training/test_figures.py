"""Test-time augmentation of a run, and figures by class, compared with independent ones."""

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support

import seit
from seit.errors import UsageError
from seit.training.views import MeanOfViews, views_of


def test_logits_of_views_are_those_of_their_mean_probability():
    views = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    one = MeanOfViews(torch.nn.Identity(), has_label_sets=False)(views).softmax(-1)
    torch.testing.assert_close(one, views.float().softmax(-1).mean(0))
    several = MeanOfViews(torch.nn.Identity(), has_label_sets=True)(views).sigmoid()
    torch.testing.assert_close(several, views.float().sigmoid().mean(0))


def test_figures_by_class_are_those_of_scikit_learn(learned, pattern_store):
    found = seit.evaluate(learned, store=pattern_store)
    by_class = found.record()["by_class"]
    expected = precision_recall_fscore_support(
        found.labels, found.predictions, labels=range(3), zero_division=np.nan
    )
    for name, figures in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        own = [by_class[one][name] for one in found.classes]
        own = [np.nan if value is None else value for value in own]
        np.testing.assert_allclose(own, figures)


def test_a_run_of_whole_grids_that_do_not_mirror_is_refused(learned, pattern_store):
    assert not pattern_store.card.tokenizer.flip_equivariant
    with pytest.raises(UsageError, match="leave --tta out"):
        seit.evaluate(learned, store=pattern_store, tta=True)


def test_pixels_have_no_views(pattern_store):
    from seit.augment import AugmentConfig, PixelAugment, StoredTokens

    with pytest.raises(UsageError, match="takes pixels; leave it out"):
        views_of(pattern_store, PixelAugment((64, 64), AugmentConfig()))
    codebook, grid = torch.from_numpy(pattern_store.codebook), pattern_store["val"].grid
    with pytest.raises(UsageError, match="is a file that crops them by itself"):
        views_of(pattern_store, StoredTokens(codebook, grid))
