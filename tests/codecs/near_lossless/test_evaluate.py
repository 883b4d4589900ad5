import json
import math
from pathlib import Path

import numpy as np
import pytest
from maskdecay.codecs import Picture, write_picture
from maskdecay.codecs.near_lossless._codec import NearLosslessCodec
from maskdecay.codecs.near_lossless._evaluate import measure_coders, near_lossless_coder
from maskdecay.codecs.near_lossless._rivals import find_rivals

from maskdecay._cli import main

TAUS = (0, 2)


def pixels(colours: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 11, colours), dtype=np.uint8)


@pytest.mark.parametrize("colours", [1, 3])
def test_rivals_keep_the_bound(colours: int) -> None:
    coders, missing = find_rivals(("jpeg-ls", "jpeg-xl", "webp"), TAUS)
    assert len(coders) + len(missing) == 3
    for coder in coders:
        for tau in TAUS:
            found = coder.decode(coder.encode(pixels(colours), tau))
            assert np.abs(found.astype(int) - pixels(colours)).max() <= tau, coder.name


def test_measures_by_hand(tiny_codec: NearLosslessCodec) -> None:
    rows = measure_coders([near_lossless_coder(tiny_codec, TAUS)], {"a": pixels, "b": pixels})
    data = tiny_codec.encode(Picture(colour=pixels()), max_error=2)
    lossless, bounded = rows
    assert (lossless.psnr, lossless.max_error) == (math.inf, 0)
    assert bounded.bpsp == pytest.approx(8 * len(data) / 297)
    assert bounded.max_error == 2
    error = tiny_codec.decode(data).astype(float) - pixels()
    assert bounded.psnr == pytest.approx(10 * math.log10(255**2 / (error**2).mean()))


def test_command(tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_picture(tmp_path / "a.png", Picture(colour=pixels()))
    words = ["near-lossless", "evaluate", str(tmp_path), "--model", str(tiny_weights), "--max-error", "0,3"]
    assert main([*words, "--rivals", "jpeg-xl", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["coder"], row["tau"]) for row in rows} >= {("near-lossless", 0), ("near-lossless", 3)}
    assert main([*words, "--rivals", ""]) == 0
    assert "| near-lossless | 3 " in " ".join(capsys.readouterr().out.split())
    assert main([*words, "--rivals", "gif"]) == 2
    assert "there is no rival 'gif'" in capsys.readouterr().err
