"""Structures to imitate -> frames and coordinates per token."""

from __future__ import annotations

import torch
from torch import Tensor


def no_templates(num_tokens: int) -> dict[str, Tensor]:
    """The fields of `Features` for a complex without templates: T = 0."""
    shape = (0, num_tokens)
    return {
        "template_res_type": torch.zeros(shape, dtype=torch.int64),
        "template_frame_rot": torch.zeros(*shape, 3, 3),
        "template_frame_t": torch.zeros(*shape, 3),
        "template_cb": torch.zeros(*shape, 3),
        "template_ca": torch.zeros(*shape, 3),
        "template_mask_cb": torch.zeros(shape),
        "template_mask_frame": torch.zeros(shape),
        "template_mask": torch.zeros(shape),
        "template_visibility": torch.zeros(shape, dtype=torch.int64),
    }
