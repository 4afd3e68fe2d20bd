"""The contract: the protocols of networks and objectives.

An `Objective` defines what is learned: it initialises parameters and gives the losses of its *players*. A player is a
parameter group with its own loss. Training minimises, for every player i with parameters theta_i,

    theta_i <- argmin_{theta_i} E_{batch, key} [ loss_i(theta_1, ..., theta_n) ],

updating the players in turn, each its own parameters only. A likelihood model is a game with one player, a GAN one
with two. A family of generative models is a frozen dataclass with these methods and the capabilities it has
(`Samples`, `HasLogProb`, ...), which programs test for by `isinstance`; no base class and no registry.

Arguments that all methods share:

    params   float32 parameters by player            key    typed PRNG key
    extra    state that no optimizer trains          num    number of examples
    batch    after the experiment's transforms: "x" [b, *shape], float32 in the scale of the transforms or integer
             tokens, and what the model is conditioned on, such as "label" int32 [b]
    cond     what samples are asked for, such as {"label": int32 [num]}; None draws unconditionally
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.network import Network as Network
from genjax.core.network import Penalised as Penalised
from genjax.core.types import Array, Batch, Condition, Extra, Key, Params, PyTree, record


@record
class Context:
    """Inputs of a loss besides parameters, extra state and data.

    Attributes:
        key: typed PRNG key, a function of (seed, step, player) alone.
        step: int32 scalar, number of completed training steps.
        train: Python bool, static under jit; False in evaluation.
    """

    key: PyTree
    step: PyTree
    train: bool = dataclasses.field(default=True, metadata={"static": True})


@record
class Mean:
    """A metric that is a mean over something else than the loss is, or a function of such a mean.

    Attributes:
        value: float32, scalar; with `report` an array.
        weight: scalar float32, the number of elements that the mean is over; 0 where there are none.
        report: combined value -> metrics by name, logged in its place, for what is no mean itself: the perplexity of
            the mean code frequencies [k]. A module's function, static under jit.
    """

    value: PyTree  # no narrower: gradients and shapes of means are `Mean`s too
    weight: PyTree
    report: Callable[[Array], Mapping[str, Array]] | None = dataclasses.field(
        default=None, metadata={"static": True}
    )


@record
class Aux:
    """Outputs of a loss besides its value.

    Micro-batches, replicas and the batches of a held-out split are combined by sum(w value) / sum(w). Exact for means;
    a loss that is nonlinear in the batch (balance of experts, free bits, batch statistics) is the mean of its values.

    Attributes:
        metrics: name -> scalar to log, a mean over what the loss is a mean over, or a `Mean`.
        extra: the entries of `extra` that this player replaces.
        weight: w, the number of elements that the loss is a mean over; None for the rows of the batch.
    """

    metrics: dict[str, PyTree] = dataclasses.field(default_factory=dict)
    extra: dict[str, PyTree] = dataclasses.field(default_factory=dict)
    weight: PyTree = None


LossFn = Callable[[Params, Extra, Batch, Context], tuple[Array, Aux]]
UpdateFn = Callable[[Params, Extra, Batch, Context], tuple[PyTree, Aux]]


@dataclasses.dataclass(frozen=True)
class Player:
    """A parameter group: trained by the gradient of its own loss, or updated in closed form.

    Attributes:
        loss: (params, extra, batch, context) -> (scalar float32, Aux): mean over the batch, nats for a likelihood.
        every: update interval in steps, at least 1: the player is updated on steps divisible by it.
        update: (params, extra, batch, context) -> (the player's new parameters, Aux), in place of a loss: expectation
            maximisation, counts. It sees the whole batch at once, and no optimizer.
    """

    loss: LossFn | None = None
    every: int = 1
    update: UpdateFn | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"every={self.every}: the update interval of a player must be at least 1")
        if (self.loss is None) == (self.update is None):
            raise UserError("a player has either a loss or an update")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How an objective draws samples, for reports.

    Attributes:
        name: of the method: "DDIM", "direct", "token by token".
        steps: of its loop; 1 without a loop.
        evaluations: of the network for one sample; the most that there can be where steps are adaptive.
        stops_early: whether the loop ends before its last step where a sample is complete.
    """

    name: str
    steps: int = 1
    evaluations: int = 1
    stops_early: bool = False

    def __str__(self) -> str:
        plural = lambda count, word: f"{count} {word}" + "s" * (count != 1)
        counts = f"{plural(self.steps, 'step')}, {plural(self.evaluations, 'evaluation')}"
        return f"{self.name}, {counts} per sample"


@runtime_checkable
class Conditioner(Protocol):
    """Makes the condition of a network from what a batch holds beside x. Implementations: `genjax.conditioning`.

    Attributes:
        dropout: probability with which training hides the condition of an example, for classifier-free guidance.
        classes: number of classes that samples can be asked for by `{"label": ...}`; 0 if labels are no part of it.
    """

    @property
    def dropout(self) -> float: ...

    @property
    def classes(self) -> int: ...

    def check(self, batch: Batch) -> None:
        """Raises UserError where the batch lacks what the condition is made from."""

    def __call__(self, batch: Batch | None, num: int) -> Condition:
        """The condition of `num` examples; the one of "nothing" where the batch does not give it."""

    def hide(self, condition: Condition, kept: Array) -> Condition:
        """The condition with "nothing" in place of the examples where `kept` bool [b] is False."""


@runtime_checkable
class Weights(Protocol):
    """Trained parameters that come from elsewhere, such as `training.pretrained.Pretrained`."""

    def load(self, objective: "Objective", key: Key, batch: Batch) -> tuple[Params, Extra]:
        """The trained values of `objective`, in place of those of `objective.init(key, batch)`."""


@runtime_checkable
class Objective(Protocol):
    """Defines what is learned. Implemented by frozen dataclasses whose fields are the hyperparameters.

    Attributes:
        condition: what the model is given beside x; None for an unconditional model.
    """

    def __hash__(self) -> int: ...

    @property
    def condition(self) -> Conditioner | None: ...

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Initialises float32 parameters by player, and the extra, untrained state."""

    def players(self) -> Mapping[str, Player]:
        """Player name -> player, in the order of their updates; the keys are those of `params`."""


@runtime_checkable
class Samples(Protocol):
    """Draws samples."""

    @property
    def sampling(self) -> Sampling:
        """The method, its steps and evaluations, for reports."""

    def sample(self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None) -> PyTree:
        """Samples [num, *shape] in the scale of `batch["x"]`."""


@runtime_checkable
class HasPath(Protocol):
    """Draws samples iteratively and exposes the intermediate states."""

    def path(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> tuple[Float[Array, " n"], PyTree]:
        """(times [n], states [n, num, *shape]) of `sample`, from the first state to the samples."""


@runtime_checkable
class HasShape(Protocol):
    """Its configuration fixes the shape of one example."""

    @property
    def shape(self) -> tuple[int, ...]: ...


@runtime_checkable
class HasValues(Protocol):
    """Models, or encodes to, integers of a fixed number of values; 0 for real numbers."""

    @property
    def values(self) -> int: ...


@runtime_checkable
class HasLogProb(Protocol):
    """Evaluates the log-likelihood of data.

    Attributes:
        log_prob_kind: for reports: "exact", "lower bound (ELBO)", "ODE estimate (...)"; empty if the objective is
            configured without a likelihood.
    """

    @property
    def log_prob_kind(self) -> str: ...

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """Log-density of each example [b] (log-probability for discrete data), in nats, float32."""


@runtime_checkable
class HasElements(Protocol):
    """Has a likelihood of some elements of each example, such as the tokens of a document."""

    def elements(self, batch: Batch) -> Float[Array, " b"]:
        """Number of elements of each example that `log_prob` covers, float32."""


@runtime_checkable
class HasLevels(Protocol):
    """Has a likelihood of integer data (an objective, or an output distribution)."""

    @property
    def levels(self) -> int:
        """Number of integer values, each with a probability of its own; 0 for a density."""


@runtime_checkable
class Dequantizes(HasLevels, Protocol):
    """Models integers by a density of the integers plus noise."""

    @property
    def dequantization(self) -> str:
        """Name of the noise's distribution; empty if it adds none."""


@runtime_checkable
class HasWarp(Protocol):
    """The pushforward of a base distribution by a map of several layers."""

    @property
    def window(self) -> tuple[float, float]:
        """(low, high), the interval with most of the mass of each coordinate of the base distribution."""

    def warp(
        self, params: Params, extra: Extra, z: Float[Array, "b ..."]
    ) -> tuple[Float[Array, " n"], Float[Array, "n b ..."]]:
        """As `HasPath.path`, for given points z [b, *shape] of the base distribution, unconditionally."""


@runtime_checkable
class HasVelocity(Protocol):
    """Transports points along a velocity field."""

    def velocity(
        self, params: Params, extra: Extra, x: Float[Array, "b ..."], t: Float[Array, ""]
    ) -> Float[Array, "b ..."]:
        """dx/dt at x [b, *shape] and time t, in the scale of `batch["x"]`, unconditionally."""


@runtime_checkable
class Adapter(Protocol):
    """Trains another objective through parameters of its own, e.g. low-rank adaptation (LoRA).

    Programs use the capabilities of `inner` with the merged parameters (`training.workdir.merge_adapters`).
    """

    @property
    def inner(self) -> Objective: ...

    def merged(self, params: Params, extra: Extra) -> tuple[Params, Extra]:
        """Parameters and extra state with which the inner objective computes the same function."""


@runtime_checkable
class HasDecoder(Objective, Protocol):
    """Decodes latents to data: a generator, whose latents are N(0, I), or an autoencoder."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latents of one example."""

    def decode(self, params: Params, extra: Extra, z: Array, key: Key, cond: Batch | None = None) -> PyTree:
        """Data [b, *shape] in the scale of `batch["x"]` from latents z [b, *latent_shape]."""


@runtime_checkable
class HasEncoder(HasDecoder, Protocol):
    """Also encodes data as latents."""

    def encode(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Array:
        """Latents [b, *latent_shape]: a sample of q(z|x), or the codes."""


@runtime_checkable
class HasLatents(HasEncoder, HasValues, Protocol):
    """A probabilistic autoencoder, with q(z|x) and p(x|z); `values` is that of a latent."""

    def log_decode(
        self, params: Params, extra: Extra, batch: Batch, key: Key
    ) -> tuple[Array, Float[Array, " b"]]:
        """(z as `encode` returns it, log p(x|z) - log q(z|x) in nats [b]); plus log p(z) this bounds log p(x)."""


@runtime_checkable
class HasStyles(HasDecoder, Protocol):
    """A generator with one latent (style) per layer, from coarse to fine layers."""

    @property
    def styles(self) -> int:
        """Number of layers that take a style."""

    def mix(
        self,
        params: Params,
        extra: Extra,
        coarse: Array,
        fine: Array,
        place: int,
        key: Key,
        cond: Batch | None = None,
    ) -> PyTree:
        """Style mixing (Karras et al. 2019, arXiv:1812.04948): data [b, *shape] from latents [b, *latent_shape],
        `coarse` in the layers before `place` (0 ... styles), `fine` in those from it on.
        """


@runtime_checkable
class HasTranslation(Protocol):
    """Translates images; its examples are image pairs side by side, see `data.sources.pairs`.

    Its `sample` takes examples as `cond["x"]` [num, ...] and returns them with the target replaced by the translation.
    """

    def translate(
        self, params: Params, extra: Extra, batch: Batch, key: Key
    ) -> Mapping[str, Float[Array, "b h w c"]]:
        """Images [b, h, w, c] by name: "input", its translation "output", the pair's "target"; "back", the output
        translated back, if there is the inverse; with "_reversed" appended for the other direction, if it is learned.
        """


def require_samples(objective: Objective) -> Samples:
    """The objective as one that draws samples.

    Raises:
        UserError: it draws none.
    """
    if not isinstance(objective, Samples):
        raise UserError(f"{type(objective).__name__} draws no samples")
    return objective


def num_classes(objective: Objective) -> int:
    """Number of classes that samples can be asked for; 0 for none."""
    return objective.condition.classes if objective.condition else 0


def levels_of(part: object) -> int:
    """Number of integer values with probabilities of their own; 0 for a density."""
    return part.levels if isinstance(part, HasLevels) else 0


def dequantization_of(part: object) -> str:
    """Name of the noise that a model of integers adds to them; empty if it adds none."""
    return part.dequantization if isinstance(part, Dequantizes) else ""


def elements_of(objective: object, batch: Batch) -> Float[Array, " b"]:
    """Number of elements of each example that the likelihood covers: all, unless the objective counts them."""
    if isinstance(objective, HasElements):
        return objective.elements(batch)
    return jnp.full(len(batch["x"]), float(math.prod(batch["x"].shape[1:])))
