"""Backbones (images -> features) and heads (features -> maps). Trunks are torchvision's wherever it has them."""
