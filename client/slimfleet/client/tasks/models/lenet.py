"""LeNet-300-100 and LeNet-5 (LeCun et al. 1998), with the sizes that papers on compression use.

Those of Caffe's examples, on which Han et al. 2015 ("Deep Compression", arXiv 1510.00149) and most after them report.
"""

from __future__ import annotations

from torch import nn


def lenet_300_100(classes: int = 10) -> nn.Module:
    """784 pixels, hidden layers of 300 and 100: 266,610 parameters."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, classes)
    )


def lenet_5(classes: int = 10) -> nn.Module:
    """5x5 convolutions of 20 and 50 channels, each with max pooling, and a hidden layer of 500: 431,080 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * 4 * 4, 500),
        nn.ReLU(),
        nn.Linear(500, classes),
    )
