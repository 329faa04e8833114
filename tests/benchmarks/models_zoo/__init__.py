"""Models of torchvision, timm and torch.nn: what discovery, the FLOP count and torch-pruning make of each of them."""
