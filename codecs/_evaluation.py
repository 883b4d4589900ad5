"""An evaluation: curves of codecs over the same pictures, measured in one run; JSON both ways."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from typing import Any, Literal

from ._rate_distortion import BDRate, MeanPoint, PublishedCurve, RDCurve, RDPoint

Clock = Literal["wall", "cpu"]
"""What seconds are: of a clock on the wall, or of the process's own CPU time."""
_FORMAT = "maskdecay evaluation"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything measured in one run over the same images.

    Args:
        dataset: name of the folder.
        images: names, in order.
        curves: of the codecs that are evaluated.
        baselines: of those that they are held against.
        published: drawn beside them.
        bd_rates: of each curve against each baseline, published ones only where the images are those.
        missing: a line about each baseline that the machine lacks.
        machine: what it ran on.
        clock: what seconds are.
    """

    dataset: str
    images: tuple[str, ...]
    curves: tuple[RDCurve, ...] = ()
    baselines: tuple[RDCurve, ...] = ()
    published: tuple[PublishedCurve, ...] = ()
    bd_rates: tuple[BDRate, ...] = ()
    missing: tuple[str, ...] = ()
    machine: str = ""
    clock: Clock = "wall"

    @property
    def measured(self) -> tuple[RDCurve, ...]:
        """Curves, then baselines."""
        return self.curves + self.baselines

    def to_json(self) -> str:
        """All of it, with the means, which are there to be read and are made anew from the points by `from_json`.

        A PSNR of null is infinite: no error at all.
        """
        data = {
            "format": _FORMAT,
            "version": _VERSION,
            **{name: getattr(self, name) for name in ("dataset", "machine", "clock", "images", "missing")},
            "curves": [_curve_data(curve) for curve in self.curves],
            "baselines": [_curve_data(curve) for curve in self.baselines],
            "published": [_plain(curve) for curve in self.published],
            "bd_rates": [_plain(found) for found in self.bd_rates],
        }
        return _lay_out(data) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """What `to_json` wrote.

        Raises:
            ValueError: it did not write this.
        """
        try:
            data = json.loads(text)
            if data["format"] != _FORMAT or data["version"] != _VERSION:
                raise ValueError(f"format {data['format']!r} of version {data['version']}")
            return cls(
                dataset=data["dataset"],
                machine=data["machine"],
                clock=data["clock"],
                images=tuple(data["images"]),
                missing=tuple(data["missing"]),
                curves=tuple(_curve(found) for found in data["curves"]),
                baselines=tuple(_curve(found) for found in data["baselines"]),
                published=tuple(_published(found) for found in data["published"]),
                bd_rates=tuple(BDRate(**found) for found in data["bd_rates"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this is no evaluation written by maskdecay {_VERSION}: {error}") from error


_COLUMNS = [field.name for field in fields(RDPoint)]


def _curve_data(curve: RDCurve) -> dict[str, Any]:
    return {
        **{name: getattr(curve, name) for name in ("name", "title", "about", "setting")},
        "means": [_plain(point) for point in curve.means],
        "columns": _COLUMNS,
        "points": [[_finite(value) for value in astuple(point)] for point in curve.points],
    }


def _curve(data: Mapping[str, Any]) -> RDCurve:
    points = []
    for row in data["points"]:
        values = dict(zip(data["columns"], row, strict=True))
        points.append(RDPoint(**{**values, "psnr": math.inf if values["psnr"] is None else values["psnr"]}))
    texts = {name: data[name] for name in ("name", "title", "about", "setting")}
    return RDCurve(**texts, points=tuple(points))


def _published(data: Mapping[str, Any]) -> PublishedCurve:
    means = tuple(MeanPoint(**point) for point in data["means"])
    texts = {name: data[name] for name in ("name", "title", "source")}
    return PublishedCurve(**texts, images=tuple(data["images"]), means=means)


def _plain(found: Any) -> dict[str, Any]:
    """Fields of a dataclass that JSON can hold, means rounded to what was measured."""
    data = {field.name: getattr(found, field.name) for field in fields(found)}
    return {name: [_plain(own) for own in value] if name == "means" else _finite(value) for name, value in data.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _lay_out(value: Any, indent: str = "") -> str:
    """JSON with a line for each innermost list or object, so that versions of a file can be compared."""
    inner = indent + " "
    held = list(value.values() if isinstance(value, dict) else value) if isinstance(value, dict | list) else []
    if not any(isinstance(own, dict | list | tuple) for own in held):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    if isinstance(value, dict):
        lines = [f"{json.dumps(name)}: {_lay_out(own, inner)}" for name, own in value.items()]
        return "{\n" + ",\n".join(inner + line for line in lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _lay_out(own, inner) for own in value) + f"\n{indent}]"
