"""Symptoms of a network's layers: of their weights, activations and deltas."""

import numpy as np
from numpy.typing import NDArray

from backlight.diagnosis.course import last_step
from backlight.diagnosis.finding import Finding, Severity, by_progress
from backlight.diagnosis.knowledge import (
    BELOW,
    HARDLY_LEARNED,
    LEARNED,
    has_learned,
    is_harmless,
    missing,
)
from backlight.diagnosis.loss_symptoms import diverging, oscillating
from backlight.diagnosis.observations import LayerState, Observations

VANISHED = 1e-3
"""RMS delta of the first layer over that of the last. With σ' ≤ 1/4 and PyTorch's weights one layer leaves
about 0.14 and the last step to one output 0.05, so three hidden layers come to it."""

EXPLODED = 12.0
"""The same ratio upwards. Healthy networks start with 0.35 and less and end with 11 and less (calibration set); more, and
first-layer steps are so much longer than those of the output layer that no common rate fits."""

GROWN = 2.0
"""The same before the first step, of a network that knows next to nothing of its own or of other rows in the end: 34 that
started with weights that fit had 1.7 and less. Of 12 runs between this and EXPLODED 11 are healthy with smaller weights at
a usual rate, and 7 with their first remedy of before, mostly a higher rate; 11 come further by a twentieth of all there is
to learn."""

SATURATED_SHARE = 0.5
"""Of a layer's slopes: more than half of the error is then cut to a fifth or less in this layer alone."""

SILENT_SHARE, SPARED_SHARE = 0.4, 0.5
"""Of a relu layer's units. The latter of a network that knows what can be known and whose loss does not leap: up to a half
in healthy ones of 8 to 48 units (60 runs), 0.55 and more where a high rate killed them (calibration set). Of others less
will do."""

SAME = 1e-4
"""Relative distance of two neurons' weights below which no step of float32 sets them apart."""

FEW_WEIGHTS = 4  # of a neuron, its bias first: other neurons hardly ever have the same by chance


def non_finite(seen: Observations) -> Finding | None:
    """A loss or a weight stopped being a number."""
    for layer in seen.end:
        if not (np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all()):
            return Finding(
                "non_finite", "fatal", last_step(seen), {"tensor": f"{layer.name}.weight"}, layer.name
            )
    if seen.error is not None and any(f" is {word} " in seen.error for word in ("nan", "inf", "-inf")):
        evidence: dict[str, float | str] = {"error": seen.error}
        if seen.first_non_finite is not None:
            evidence["first_tensor"] = ".".join(seen.first_non_finite)
        where = seen.first_non_finite[0] if seen.first_non_finite else None
        return Finding("non_finite", "fatal", last_step(seen), evidence, where)
    return None


def symmetric_neurons(seen: Observations) -> Finding | None:
    """Neurons of a layer are copies of each other, get the same gradient, and stay copies."""
    for step, moment in ((0, seen.start), (last_step(seen), seen.end)):
        for layer in moment[:-1]:
            copies = _copies(layer)
            if len(layer.weight) > 1 and len(copies) > len(layer.weight) / 2:
                return Finding(
                    "symmetric_neurons",
                    by_progress(seen),
                    step,
                    {"copies": float(len(copies)), "neurons": float(len(layer.weight))},
                    layer.name,
                    copies,
                )
    return None


def dead_units(seen: Observations) -> Finding | None:
    """Units of relu have slope 0 on every row: no error passes them, so they cannot come back."""
    if seen.settings.activation != "relu":
        return None
    # A network that knows less than the neighbours may lack just these.
    is_harmless = seen.progress() >= LEARNED and missing(seen) < BELOW
    enough = SPARED_SHARE if is_harmless and oscillating(seen) is None else SILENT_SHARE
    moments = [(last_step(seen), seen.end)]
    if not is_harmless:  # one that has learned may have brought back what was silent at its start
        moments.insert(0, (0, seen.start))
    for step, moment in moments:
        for layer in moment[:-1]:
            share = float(layer.silent.mean())
            if share > enough:
                return Finding(
                    "dead_units",
                    "warning" if is_harmless else by_progress(seen),
                    step,
                    {"share": share},
                    layer.name,
                    np.flatnonzero(layer.silent).tolist(),
                )
    return None


def saturated_neurons(seen: Observations) -> Finding | None:
    """Slopes near 0 cut the error off, from the start or in a network that has not learned."""
    if seen.settings.activation not in ("sigmoid", "tanh"):
        return None
    moments = [(0, seen.start)]
    # Networks that have learned something saturate as they become sure of it.
    if seen.progress() < HARDLY_LEARNED:
        moments.append((last_step(seen), seen.end))
    for step, moment in moments:
        for layer in moment[:-1]:
            share = float(layer.saturation.mean())
            if share > SATURATED_SHARE:
                return Finding(
                    "saturated_neurons",
                    _severity(seen),
                    step,
                    {"share_of_slopes_near_0": share, "progress": seen.progress()},
                    layer.name,
                    np.flatnonzero(layer.saturation > SATURATED_SHARE).tolist(),
                )
    return None


def vanishing_gradient(seen: Observations) -> Finding | None:
    """Hardly any error reaches the first layer of a network that has not learned."""
    # Of many classes half of the way is not yet what the neighbours know.
    if has_learned(seen) and missing(seen) < BELOW:
        return None
    for step, moment in ((0, seen.start), (last_step(seen), seen.end)):
        ratio = _first_over_last(moment)
        if len(moment) > 2 and ratio < VANISHED:
            return Finding(
                "vanishing_gradient",
                by_progress(seen),
                step,
                {"first_over_last_rms_delta": ratio, "progress": seen.progress()},
                moment[0].name,
            )
    return None


def exploding_gradient(seen: Observations) -> Finding | None:
    """The error grows from layer to layer on its way back."""
    knows_something = seen.progress() >= HARDLY_LEARNED and not seen.progress("val") < HARDLY_LEARNED
    moments = [(0, seen.start, EXPLODED if knows_something else GROWN)]
    # One that has learned may look unusual at its end, not when it starts; and one that diverged has grown so.
    if not has_learned(seen) and diverging(seen) is None:
        moments.append((last_step(seen), seen.end, EXPLODED))
    for step, moment, enough in moments:
        ratio = _first_over_last(moment)
        if ratio > enough:
            return Finding(
                "exploding_gradient",
                _severity(seen),
                step,
                {"first_over_last_rms_delta": ratio, "usual_at_most": enough},
                moment[0].name,
            )
    return None


def _severity(seen: Observations) -> Severity:
    """Of what a network may learn in spite of, where its loss has come to rest."""
    return "warning" if is_harmless(seen) and oscillating(seen) is None else by_progress(seen)


def _first_over_last(layers: list[LayerState]) -> float:
    last = layers[-1].rms_delta
    return layers[0].rms_delta / last if last > 0 else float("nan")


def _copies(layer: LayerState) -> list[int]:
    """The neurons whose weights and bias another one has too."""
    rows = np.concatenate([layer.bias[:, None], layer.weight], axis=1)
    size = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True)).astype(np.float64)
    if not np.isfinite(size).all():
        return []
    # Of each neuron's own size: beside one that has run away all others look the same.
    size = size.clip(min=np.finfo(np.float32).tiny)
    neurons = np.arange(len(rows))
    for columns in (FEW_WEIGHTS, rows.shape[1]):  # a few tell nearly all apart
        scaled = np.append(rows[neurons, :columns] / size[neurons], np.log(size[neurons]), axis=1)
        neurons = neurons[_repeated(np.round(scaled / SAME).astype(np.int64))]
    return neurons.tolist()


def _repeated(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of each row, whether another one is the same."""
    # One number for each, by chance the same for others with a probability of 2⁻⁶³: rows take long to sort.
    draw = np.random.default_rng(0).integers(-(2**63), 2**63, rows.shape[1], dtype=np.int64)
    _, which, counts = np.unique((rows * (draw | 1)).sum(axis=1), return_inverse=True, return_counts=True)
    repeated: NDArray[np.bool_] = counts[which] > 1
    return repeated
