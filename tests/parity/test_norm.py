"""Our RMSNorm against PyTorch's, in what it gives and in its gradients."""

import pytest
import torch
from vqmem.models.norm import RMSNorm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_torch(dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 12, dtype=dtype)
    x[0, 0] = 0
    ours, theirs = RMSNorm(12).to(dtype), torch.nn.RMSNorm(12).to(dtype)
    with torch.no_grad():
        ours.weight.uniform_(0.5, 2)
        theirs.weight.copy_(ours.weight)
        without = ours(x)
    made = []
    for norm in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        y.sin().sum().backward()
        made.append((y.detach(), leaf.grad, norm.weight.grad))
    torch.testing.assert_close(made[0], made[1])
    torch.testing.assert_close(without, made[1][0])
