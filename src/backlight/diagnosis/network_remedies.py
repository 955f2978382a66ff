"""The network: its units, the weights that it starts with, and its layers."""

from backlight.diagnosis.observations import Observations
from backlight.diagnosis.remedy import Remedy

UNSATURATE = Remedy(
    "model.init=xavier model.init_scale=1.0",
    "Small starting weights keep the pre-activations where the slope is large.",
    "Glorot & Bengio 2010",
)

TAME = Remedy(
    UNSATURATE.overrides,
    "Large weights multiply the error at every layer on its way back; weights of this size keep it about as large.",
    "Glorot & Bengio 2010",
)

RANDOM_INIT = Remedy(
    "model.init=xavier model.init_scale=1.0",
    "Random weights differ, so that neurons get different gradients and learn different things.",
    "Rumelhart, Hinton & Williams 1986",
)


def fitting_init(seen: Observations) -> Remedy:
    """Weights to start with through which the error keeps its size."""
    # σ' is 1/4 at 0, so weights four times Glorot's keep the error's size through a sigmoid layer.
    init, scale = {"sigmoid": ("xavier", 4.0), "relu": ("he", 1.0)}.get(
        seen.settings.activation, ("xavier", 1.0)
    )
    return Remedy(
        f"model.init={init} model.init_scale={scale}",
        f"Weights of this size pass the error through a {seen.settings.activation} layer undiminished.",
        "Glorot & Bengio 2010; He et al. 2015, arXiv:1502.01852",
    )


TANH = Remedy(
    "model.activation=tanh model.init=xavier model.init_scale=1.0",
    "The slope of tanh is 1 at 0, four times that of the sigmoid, at every layer.",
    "LeCun et al. 1998, Efficient BackProp, section 4.4",
)

GELU = Remedy(
    "model.activation=gelu model.init=xavier model.init_scale=1.0",
    "Gelu has a slope for negative inputs too, so that a unit can come back.",
    "Hendrycks & Gimpel 2016, arXiv:1606.08415",
)


def one_layer(seen: Observations) -> Remedy:
    """Of the layers the first only."""
    return Remedy(
        f"model.hidden=[{seen.settings.hidden[0]}]",
        "Every layer less is a factor σ' ≤ 1/4 less on the way back.",
        "Nielsen, Neural Networks and Deep Learning, chapter 5",
    )


def fewer_neurons(seen: Observations) -> Remedy:
    """An eighth of every layer's."""
    hidden = [max(4, width // 8) for width in seen.settings.hidden]
    return Remedy(
        f"model.hidden=[{','.join(map(str, hidden))}]",
        "Fewer neurons can memorise less.",
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 5.2",
    )


def wide_layer(seen: Observations) -> Remedy:
    """One layer, four times as wide as the widest."""
    wide = max(20, 4 * max(seen.settings.hidden))
    return Remedy(
        f"model.hidden=[{wide}]",
        "Among more neurons some start on the right side of a saddle.",
        "Choromanska et al. 2015, arXiv:1412.0233",
    )


def more_neurons(seen: Observations) -> Remedy:
    """Four times as many in every layer."""
    hidden = [max(32, 4 * width) for width in seen.settings.hidden]
    return Remedy(
        f"model.hidden=[{','.join(map(str, hidden))}]",
        "More neurons can draw the border between the classes in more places.",
        "Cybenko 1989; Goodfellow, Bengio & Courville 2016, section 5.2",
    )


def second_layer(seen: Observations) -> Remedy:
    """Two layers, as wide as the widest."""
    width = max(32, *seen.settings.hidden)
    return Remedy(
        f"model.hidden=[{width},{width}] {fitting_init(seen).overrides}",
        "A second layer combines what the first has found.",
        "Montúfar et al. 2014, arXiv:1402.1869",
    )
