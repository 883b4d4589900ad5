"""Early exit: a denoiser whose user chooses at run time how much it computes.

A large encoder and a decoder learn to clean noisy pictures of digits. `grow_ensemble` then turns the encoder into
three small ones by repeated mask decay, each learning what those before it left, and one decoder reads any number of
them. Run it with `python examples/early_exit_denoiser.py`; it wants scikit-learn for the pictures and takes some
20 seconds on one core.
"""

from __future__ import annotations

import torch
from maskdecay.profiling import macs
from sklearn.datasets import load_digits
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F

import maskdecay as md

NOISE = 0.4  # deviation, of pixels in 0..1
DEPTHS = 3
KEEP = 0.25  # of the large encoder's channels, in each small one


class Denoiser(nn.Module):
    """An encoder, large or an ensemble of small ones, and a decoder that does not know which."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, noisy: Tensor, depth: int | None = None) -> Tensor:
        """Clean pictures (batch, 1, 8, 8), with `depth` of the encoders where there are several."""
        return self.decoder(self.encoder(noisy) if depth is None else self.encoder(noisy, depth=depth))

    def all_depths(self, noisy: Tensor) -> Tensor:
        """Clean pictures (depths, batch, 1, 8, 8); each encoder runs once, and so does the decoder."""
        features = self.encoder.all_depths(noisy)
        return self.decoder(features.flatten(0, 1)).unflatten(0, features.shape[:2])


def load_pictures() -> tuple[Tensor, Tensor]:
    """Digits (pictures, 1, 8, 8) in 0..1: those to train on, and 360 to judge on."""
    pictures = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    return pictures[360:], pictures[:360]


def make_encoder(width: int = 32) -> nn.Sequential:
    """Pictures to 8 features; these are no channels to prune, for the decoder reads them."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 8, 3, padding=1),
    )


def make_decoder() -> nn.Sequential:
    """8 features to pictures."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))


class Training:
    """One loop for every stage; `grow_ensemble` calls it with the ensemble of the moment.

    Args:
        decoder: behind every encoder; it stays as it is until the joint stage.
        pictures: to train on.
        steps: of the stages whose length is ours to choose.
    """

    def __init__(self, decoder: nn.Module, pictures: Tensor, steps: int) -> None:
        self.decoder, self.pictures, self.steps = decoder, pictures, steps
        self.generator = torch.Generator().manual_seed(0)

    def batch(self) -> tuple[Tensor, Tensor]:
        """32 pictures with new noise, and without."""
        clean = self.pictures[torch.randint(len(self.pictures), (32,), generator=self.generator)]
        return clean + NOISE * torch.randn(clean.shape, generator=self.generator), clean

    def teach(self, encoder: nn.Module) -> None:
        """Trains a large encoder and the decoder."""
        model = Denoiser(encoder, self.decoder)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in range(4 * self.steps):
            noisy, clean = self.batch()
            optimizer.zero_grad()
            F.mse_loss(model(noisy), clean).backward()
            optimizer.step()

    def __call__(self, ensemble: md.ResidualEnsemble, stage: md.GrowthStage) -> None:
        """Trains the newest encoder, or all of them and the decoder."""
        model, joint = Denoiser(ensemble, self.decoder), stage.kind == "joint"
        trained = [p for p in (model if joint else ensemble).parameters() if p.requires_grad]
        steps = stage.steps or (4 * self.steps if joint else self.steps)
        optimizer = torch.optim.Adam(trained, lr=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            noisy, clean = self.batch()
            optimizer.zero_grad()
            output = model.all_depths(noisy) if joint else model(noisy)
            (F.mse_loss(output, clean.expand_as(output)) + stage.extra_loss()).backward()
            optimizer.step()
            stage.after_step()
            schedule.step()

    def show(self, ensemble: md.ResidualEnsemble, observe) -> None:
        """Lets the masks see what 20 batches say about each channel."""
        model = Denoiser(ensemble, self.decoder)
        for _ in range(20):
            noisy, clean = self.batch()
            ensemble.zero_grad()
            F.mse_loss(model(noisy), clean).backward()
            observe()


@torch.no_grad()
def measure_psnr(model: Denoiser, pictures: Tensor, depth: int | None) -> float:
    """Mean quality in dB over pictures with one fixed noise."""
    noise = NOISE * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    errors = (model(pictures + noise, depth).clamp(0, 1) - pictures).square().flatten(1).mean(1)
    return float(-10 * errors.log10().mean())


def main(steps: int = 300) -> list[tuple[str, float, float]]:
    """Grows the ensemble; prints and returns (encoder, its kMACs per picture, PSNR in dB), the large one first."""
    torch.manual_seed(0)
    train_pictures, test_pictures = load_pictures()
    large, decoder = make_encoder(), make_decoder()
    training = Training(decoder, train_pictures, steps)
    training.teach(large)
    one = test_pictures[:1]
    rows = [("large", macs(large, one).total.macs / 1e3, measure_psnr(Denoiser(large, decoder), test_pictures, None))]
    ensemble = md.grow_ensemble(
        large,
        md.Plan.ratio(md.find_groups(large, one), KEEP),
        depths=DEPTHS,
        decay=md.DecayConfig(steps=steps, importance="fisher"),
        train=training,
        show=training.show,
    )
    model = Denoiser(ensemble, decoder)
    for depth in range(1, DEPTHS + 1):
        cost = macs(ensemble, {"input": one, "depth": depth}).total.macs / 1e3
        rows.append((f"depth {depth}", cost, measure_psnr(model, test_pictures, depth)))
    print(tabulate(rows, headers=("encoder", "kMACs", "PSNR (dB)"), floatfmt=("", ".0f", ".2f")))
    return rows


if __name__ == "__main__":
    main()
