"""Views of a grid for test-time augmentation: crops, the whole grid resampled, and mirror images.

Resampling is linear and so is the codebook look-up, so a view of looked-up codes equals the look-up
of a resampled one-hot map; ids themselves are never interpolated.

Legend: B batch, C channels, H W grid, h w cropped grid, V views.
"""

import torch
from torch import Tensor

from seit.augment.crop import center_crop, resample, resize_matrices
from seit.augment.pipeline import TokenAugment
from seit.errors import UsageError


class GridViews:
    """Views of each grid, as inputs of the network.

    Views are the center crop of evaluation, the four corner crops, and the whole grid resampled to
    the crop's size; each also mirrored if ``flips``. Sounds take the crops at the start, the middle
    and the end of the time axis instead, of the same frequencies.

    Args:
        augment: ids → inputs (B, C, h, w) in evaluation.
        flips: True if a mirrored image has mirrored tokens.
        is_sound: True if columns are time.

    Raises:
        UsageError: that leaves the view of evaluation alone.
    """

    def __init__(self, augment: TokenAugment, *, flips: bool, is_sound: bool) -> None:
        self._augment = augment
        self._flips = flips and not is_sound
        self._is_sound = is_sound
        if self.num_views == 1:
            height, width = augment.grid
            raise UsageError(
                f"the network takes whole grids of {height}×{width} tokens, and the tokenizer does "
                "not mirror them: there are no crops or flips to average; leave --tta out"
            )

    @property
    def num_views(self) -> int:
        """Number of views V."""
        corners = self._corners()
        resampled = not self._is_sound and self._augment.grid != self._augment.output_size
        return (1 + len(corners) + resampled) * (1 + self._flips)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return the views (V, B, C, h, w) of ids (B, H, W), the one of evaluation first."""
        whole = self._augment.embed(tokens)
        h, w = size = self._augment.output_size
        views = [center_crop(whole, size)]
        views += [whole[..., top : top + h, left : left + w] for top, left in self._corners()]
        if not self._is_sound and self._augment.grid != size:
            views.append(self._resampled(whole))
        if self._flips:
            views += [view.flip(-1) for view in views]
        return torch.stack(views)

    def _corners(self) -> list[tuple[int, int]]:
        """Return top and left of the crops other than the center one."""
        (H, W), (h, w) = self._augment.grid, self._augment.output_size
        if self._is_sound:
            top = round((H - h) / 2)
            places = [(top, 0), (top, W - w)]
        else:
            places = [(0, 0), (0, W - w), (H - h, 0), (H - h, W - w)]
        return list(dict.fromkeys(places)) if (h, w) != (H, W) else []

    def _resampled(self, whole: Tensor) -> Tensor:
        (H, W), (h, w) = self._augment.grid, self._augment.output_size
        nothing = torch.zeros(1, dtype=torch.int64, device=whole.device)
        mode = self._augment.config.interpolation
        rows = resize_matrices(nothing, nothing + H, in_size=H, out_size=h, mode=mode)
        columns = resize_matrices(nothing, nothing + W, in_size=W, out_size=w, mode=mode)
        count = len(whole)
        resampled = resample(
            whole.float(), rows.expand(count, -1, -1), columns.expand(count, -1, -1)
        )
        return resampled.to(whole.dtype)
