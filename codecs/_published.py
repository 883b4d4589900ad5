"""Published rate-distortion curves, as data."""

from __future__ import annotations

from ._rate_distortion import MeanPoint, PublishedCurve

EVC_SOURCE = (
    "Wang, Li, Li, Lu: EVC: Towards Real-Time Neural Image Compression with Mask Decay, ICLR 2023 (arXiv 2302.05071); "
    "means over the 24 Kodak images at the four trained rates"
)
KODAK = tuple(f"kodim{number:02d}" for number in range(1, 25))
"""Names of the 24 images, without suffixes."""
_EVC = {
    "Large": ((0.3284, 32.475), (0.5008, 34.475), (0.7319, 36.418), (0.9813, 37.865)),
    "Medium": ((0.3329, 32.469), (0.5058, 34.429), (0.7383, 36.346), (0.9874, 37.753)),
    "Small": ((0.3393, 32.320), (0.5143, 34.241), (0.7501, 36.089), (1.0012, 37.401)),
}
_EVC_RATES = (0, 21, 42, 63)


def published_evc() -> tuple[PublishedCurve, ...]:
    """EVC Large, Medium and Small on Kodak: bpp and PSNR."""
    return tuple(
        PublishedCurve(
            name=f"published-evc-{size.lower()}",
            title=f"EVC {size} (published, on Kodak)",
            source=EVC_SOURCE,
            images=KODAK,
            means=tuple(
                MeanPoint(setting=rate, bpp=bpp, psnr=psnr)
                for rate, (bpp, psnr) in zip(_EVC_RATES, points, strict=True)
            ),
        )
        for size, points in _EVC.items()
    )
