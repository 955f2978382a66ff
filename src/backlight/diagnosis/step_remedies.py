"""How the steps are made: their rate and its schedule, the optimizer, clipping and batches."""

from backlight.diagnosis.course import has_faded
from backlight.diagnosis.loss_symptoms import LONGER_STEP, NEARLY_USUAL
from backlight.diagnosis.observations import USUAL_MOMENTUM, USUAL_RATE, Observations, Settings
from backlight.diagnosis.remedy import Remedy

BENGIO = "Bengio 2012, arXiv:1206.5533"

FAR = 10
"""Times the usual rate, or its share, from which on nothing else helps alone: of 27 deep networks at such rates none was
healthy with other weights or units, 21 at a usual rate."""

BOLD, DEEP = 3, 3
"""Times the usual rate of sigmoids, or the run's own: one step does not tell that all can be longer. Of 266 runs whose rate
was too low, 136 are healthy at a rate that the last gradient bears once, and 171 at one that is no higher than this as well;
so are 136 of 230 others. Other units bear the usual rate: of 16 networks of relu or gelu 15 are healthy there, 11 at three
times that. And the hidden layers from which on none but sigmoids bear more than the run's own: of 14 such runs 5 are healthy
at three times the usual one."""


def lower_rate(seen: Observations) -> Remedy:
    """A third of the rate, or the highest that such units bear.

    A tenth is no cure of rates far above the usual one; and cost 12 runs at about that 0.15 more of the loss than a third.
    Of 29 networks of sigmoids that oscillated or diverged 24 are healthy at BOLD times the usual rate, 0.15 of the way to
    perfect predictions farther in the mean, and 19 at the usual one; of 86 others 60 and 71.
    """
    settings = seen.settings
    # L-BFGS scales its steps itself: a rate of 1 is a whole one.
    is_bold = settings.activation == "sigmoid" and settings.optimizer != "lbfgs"
    highest = (BOLD if is_bold else 1) * settings.usual_rate
    return Remedy(
        f"optimizer.lr={two_digits(min(settings.lr / 3, highest))}",
        "A shorter step stays where the gradient still says the truth.",
        BENGIO,
    )


def lower_rate_if_high(seen: Observations) -> list[Remedy]:
    """A lower rate, unless it is low already."""
    return [] if seen.settings.rate_over_usual < NEARLY_USUAL else [lower_rate(seen)]


def higher_rate(seen: Observations) -> Remedy:
    """Against a rate that is too low."""
    why = "Along the last gradient a much longer step lowers the loss more."
    if seen.longer_step < LONGER_STEP:
        why = "Usual rates are so much higher, and at its own the run has learned little."
    return Remedy(
        f"optimizer.lr={two_digits(_better_rate(seen))}",
        why,
        BENGIO,
    )


def bolder_rate(seen: Observations) -> Remedy:
    """The same against a saddle."""
    return Remedy(
        f"optimizer.lr={two_digits(_better_rate(seen))}",
        "Gradients are small around a saddle; longer steps leave it sooner.",
        "Dauphin et al. 2014, arXiv:1406.2572",
    )


def _better_rate(seen: Observations) -> float:
    settings, usual = seen.settings, seen.settings.usual_rate
    if settings.optimizer == "sgd":  # less momentum makes less of a step
        usual *= (1 - min(settings.momentum, USUAL_MOMENTUM)) / (1 - USUAL_MOMENTUM)
    is_sigmoid = settings.activation == "sigmoid"
    is_bold = is_sigmoid or len(settings.hidden) < DEEP
    highest = max((BOLD if is_sigmoid else 1) * usual, (BOLD if is_bold else 1) * settings.lr)
    return min(max(settings.lr * max(LONGER_STEP, seen.longer_step), usual), highest)


def constant_rate(seen: Observations) -> list[Remedy]:
    """No schedule, where it has brought the rate down too soon, or far up."""
    if has_faded(seen):
        why = "The schedule has brought the rate down before the network had learned; one that stays lets it go on."
    elif len(seen.rates) and seen.rates.max() > 3 * seen.settings.lr:
        why = "The schedule raises the rate, until its steps are too long."
    else:
        return []
    return [Remedy(seen.settings.constant_rate, why, BENGIO)]


CLIP = Remedy(
    "trainer.gradient_clip_val=1.0",
    "Clipping bounds the step that one large gradient makes.",
    "Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063",
)


def without_clipping(seen: Observations) -> list[Remedy]:
    """No clipping, where it takes most of a step."""
    why = "Clipping leaves little of every step."
    wanted = Remedy("trainer.gradient_clip_val=null", why, CLIP.source)
    return [wanted] if seen.settings.kept_by_clipping < 1 / 3 else []


ADAMS = ("adam", "adamw")
ADAM = Remedy(
    "optimizer=adam optimizer.lr=0.01",
    "Adam scales each weight's step by its own gradients, so that small ones count as well.",
    "Kingma & Ba 2015, arXiv:1412.6980",
)


def usual_adam(seen: Observations) -> list[Remedy]:
    """Adam at its usual rate; of a run that had it, or AdamW, that rate alone, unless its own was within a factor of 3."""
    usual, lr = USUAL_RATE["adam"], seen.settings.lr
    if seen.settings.optimizer not in ADAMS:
        return [ADAM]
    why = "A step of Adam is about as long as its rate, of which this is the usual one."
    is_usual = NEARLY_USUAL * usual <= lr <= 3 * usual
    return [] if is_usual else [Remedy(f"optimizer.lr={usual}", why, ADAM.source)]


def at_usual_rate_if_far(seen: Observations, *found: Remedy) -> list[Remedy]:
    """These; of a run whose rate is far from the usual one, together with that."""
    return [at_usual_rate(seen, one) for one in found] if is_far_from_usual(seen.settings) else list(found)


def is_far_from_usual(settings: Settings) -> bool:
    """Whether the rate is, by `FAR`."""
    return not 1 / FAR < settings.rate_over_usual < FAR


def at_usual_rate(seen: Observations, remedy: Remedy) -> Remedy:
    """A remedy together with a usual rate: Adam's, if the optimizer can be another one.

    Deep networks of other units than sigmoids bear a third of it: of 62 such runs 51 are healthy at a third of Adam's, and
    35 at the usual one; of SGD 7 of 10 and 6.
    """
    settings = seen.settings
    is_sigmoid = settings.activation == "sigmoid" and "model.activation" not in remedy.overrides
    is_deep = len(settings.hidden) >= DEEP and "model.hidden" not in remedy.overrides
    is_other = settings.switchable and settings.optimizer not in ADAMS
    usual, why = USUAL_RATE["adam"] if is_other else settings.usual_rate, "and this rate is a usual one"
    if is_deep and not is_sigmoid:
        usual, why = usual / 3, "and so many layers bear this rate"
    return remedy.together(
        f"{'optimizer=adam ' if is_other else ''}optimizer.lr={two_digits(usual)}",
        why,
        ADAM.source if is_other or settings.optimizer in ADAMS else BENGIO,
    )


def all_rows(seen: Observations) -> list[Remedy]:
    """For L-BFGS, unless it has them."""
    remedy = Remedy(
        "data.batch_size=full",
        "L-BFGS compares gradients from step to step, which must be of the same rows.",
        "Liu & Nocedal 1989",
    )
    has_some = seen.settings.batch_size < seen.data.rows["train"]
    return [remedy] if seen.settings.optimizer == "lbfgs" and has_some else []


TINY_BATCH, USUAL_BATCH, LARGE_BATCH = 4, 32, 256  # rows


def usual_batches(seen: Observations) -> list[Remedy]:
    """The usual ones, unless the run's are no larger."""
    remedy = Remedy(
        f"data.batch_size={USUAL_BATCH}",
        "Small batches make many steps of each epoch, and their noise leads out of flat places.",
        "LeCun et al. 1998, Efficient BackProp, section 4.1",
    )
    return [remedy] if seen.settings.batch_size > USUAL_BATCH else []


def larger_batches(seen: Observations) -> Remedy:
    """The usual ones or more, and shorter steps, if these are long.

    Of 123 runs at three times the usual rate and more 92 are healthy then, and 75 at a third of their own where that is
    higher. Of 25 such runs 13 are with larger batches alone; at usual rates 14 of 19 with them and with shorter steps too.
    """
    settings = seen.settings
    shorter = [lower_rate(seen).overrides] if settings.rate_over_usual > BOLD else []
    larger = f"data.batch_size={max(USUAL_BATCH, 8 * settings.batch_size)}"
    why = "The mean over more rows shows better where the gradient points"
    why += ", and shorter steps overshoot less" if shorter else ""
    return Remedy(
        " ".join([larger, f"trainer.max_epochs={2 * settings.max_epochs}", *shorter]),
        f"{why}; an epoch has fewer steps then, so train longer.",
        "McCandlish et al. 2018, arXiv:1812.06162",
    )


def two_digits(value: float) -> str:
    """Two significant digits, as YAML reads them back."""
    return f"{float(f'{value:.2g}')}"
