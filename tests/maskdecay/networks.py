"""Small networks that several test files use."""

import torch
from torch import nn


class Branches(nn.Module):
    """Two branches joined, a batch norm, a head: three groups."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.norm, self.c, self.head = nn.BatchNorm2d(12), nn.Conv2d(12, 6, 1), nn.Linear(6, 3)

    def forward(self, x):
        x = torch.sigmoid(self.norm(torch.cat([self.a(x), self.b(x)], 1)))
        return self.head(torch.relu(self.c(x)).mean((2, 3)))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)
        self.two.weight = self.one.weight

    def forward(self, x):
        x = torch.sigmoid(self.first(x))
        return self.one(x) * self.two(x.square())
