"""The contract: what a network is, what an objective is, and nothing else.

An `Objective` says what is learned. It makes parameters, names its *players* with their losses, and
draws samples. Training minimises, for every player i with parameters theta_i,

    theta_i <- argmin_{theta_i} E_{batch, key} [ loss_i(theta_1, ..., theta_n) ],

each player moving in turn and in its own slot only. A likelihood model is a game with one player, a GAN
one with two. A family of generative models is a frozen dataclass with these three methods; it inherits
from nothing and is registered nowhere.

The batch that an objective sees has passed the experiment's transforms: `batch["x"]` is float32 in the
scale that the transforms give (or integer tokens), `batch["label"]` int32 classes where the data has them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array, Batch, Extra, Key, Params, PyTree, record


@runtime_checkable
class Network(Protocol):
    """A function with parameters. Flax Linen modules satisfy this unchanged.

    The objective owns the widths that meet the data and passes them as `out=` (an int: features of the
    last axis; a tuple: the shape of one output) to both methods; the config owns depth and width.
    Networks of this library are called as `(x, t=None, cond=None, *, out, train=False)`: input, times
    [b] or None, conditioning vector [b, k] or None.
    """

    @property
    def init(self) -> Callable[..., PyTree]:
        """(key, *inputs, **options) -> parameters."""
        ...

    @property
    def apply(self) -> Callable[..., Any]:
        """(parameters, *inputs, **options) -> output."""
        ...


@runtime_checkable
class Penalised(Protocol):
    """A network that asks for something to be added to the loss, as a mixture of experts does to stay balanced."""

    def penalised(
        self, params: PyTree, *inputs: Any, **options: Any
    ) -> tuple[Any, Float[Array, ""], Mapping[str, Array]]:
        """As `apply`, with the penalty (weighted, 0 where the network asks for none) and scalars to be logged."""
        ...


@record
class Context:
    """What a loss may know beside parameters and data.

    Attributes:
        key: typed PRNG key, a function of (seed, step, player) alone.
        step: int32 scalar, number of steps taken so far.
        train: float32 or bool scalar; a Python bool, static under jit.
    """

    key: PyTree
    step: PyTree
    train: bool = dataclasses.field(default=True, metadata={"static": True})


@record
class Aux:
    """What a loss says beside its value.

    Attributes:
        metrics: name -> scalar, to be logged.
        extra: the entries of `extra` that this player replaces.
    """

    metrics: dict[str, PyTree] = dataclasses.field(default_factory=dict)
    extra: dict[str, PyTree] = dataclasses.field(default_factory=dict)


LossFn = Callable[[Params, Extra, Batch, Context], tuple[Array, Aux]]


@dataclasses.dataclass(frozen=True)
class Player:
    """One who moves: its loss (mean over the batch, nats where it is a likelihood), and how often.

    Attributes:
        loss: (params, extra, batch, context) -> (scalar float32, Aux).
        every: the player moves on steps divisible by `every`, at least 1.
    """

    loss: LossFn
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"every={self.every}: a player moves on steps divisible by 1 or more")


@runtime_checkable
class Objective(Protocol):
    """What is learned. Implemented by frozen dataclasses whose fields are the hyperparameters."""

    def __hash__(self) -> int: ...

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Makes float32 parameters by player, and what is carried beside them."""
        ...

    def players(self) -> Mapping[str, Player]:
        """Names the players, in the order in which they move; the keys are those of `params`."""
        ...

    def sample(self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None) -> PyTree:
        """Draws `num` samples in the scale of `batch["x"]`, given `cond["label"]` [num] if any."""
        ...


@runtime_checkable
class HasLogProb(Protocol):
    """An objective that can say how likely data are.

    Attributes:
        log_prob_kind: what the number is, in words: "exact", "lower bound (ELBO)", "ODE estimate (...)";
            empty where the objective is set to have none.
    """

    @property
    def log_prob_kind(self) -> str: ...

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """Log-density (or log-probability, for discrete data) of each example, in nats."""
        ...


@runtime_checkable
class HasPath(Protocol):
    """An objective whose samples come about step by step, and can be watched."""

    def path(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> tuple[Float[Array, " n"], PyTree]:
        """The states that `sample` goes through with the same arguments.

        Returns:
            (times [n], states [n, num, ...] in the scale of `batch["x"]`), from the first state to the samples.
        """
        ...


@runtime_checkable
class HasWarp(Protocol):
    """An objective whose samples are what a deterministic map makes of draws from a simple law, layer by layer.

    Attributes:
        window: (low, high), where most of the mass of each of the law's coordinates lies.
    """

    @property
    def window(self) -> tuple[float, float]: ...

    def warp(
        self, params: Params, extra: Extra, z: Float[Array, "b ..."]
    ) -> tuple[Float[Array, " n"], Float[Array, "n b ..."]]:
        """As `HasPath.path`, with the given points in place of draws, for no label in particular."""
        ...


@runtime_checkable
class HasVelocity(Protocol):
    """An objective that moves points by a velocity field."""

    def velocity(
        self, params: Params, extra: Extra, x: Float[Array, "b ..."], t: Float[Array, ""]
    ) -> Float[Array, "b ..."]:
        """dx/dt at x and time t, in the scale of `batch["x"]`, for no label in particular."""
        ...


@runtime_checkable
class Adapter(Protocol):
    """An objective that trains another one by way of parameters of its own, as low-rank adaptation does."""

    @property
    def inner(self) -> Objective: ...

    def merged(self, params: Params, extra: Extra) -> tuple[Params, Extra]:
        """Parameters and extra with which the inner objective does what this one does."""
        ...


@runtime_checkable
class HasDecoder(Protocol):
    """An objective that makes data of latents: a generator, whose latents are N(0, I), or an autoencoder."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one example's latents."""
        ...

    def decode(self, params: Params, extra: Extra, z: Array, key: Key, cond: Batch | None = None) -> PyTree:
        """What latents stand for, in the scale of `batch["x"]`."""
        ...


@runtime_checkable
class HasEncoder(HasDecoder, Protocol):
    """An objective that maps data to latents, too."""

    def encode(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Array:
        """Latents [b, *latent_shape] of each example: a draw, or the codes."""
        ...


@runtime_checkable
class HasLatents(HasEncoder, Protocol):
    """An objective that maps data to latents and back, with probabilities: an autoencoder."""

    @property
    def values(self) -> int:
        """Number of values of a latent that is an integer; 0 for real latents."""
        ...

    def log_decode(
        self, params: Params, extra: Extra, batch: Batch, key: Key
    ) -> tuple[Array, Float[Array, " b"]]:
        """(z as `encode` gives it, log p(x|z) - log q(z|x) in nats): with a log p(z) it makes a bound on log p(x)."""
        ...


@runtime_checkable
class HasStyles(HasDecoder, Protocol):
    """A generator that takes latents layer by layer, coarse ones first."""

    @property
    def styles(self) -> int:
        """Number of layers."""
        ...

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
        """Data of the latents `coarse` in the layers before `place`, and of `fine` from there on."""
        ...


@runtime_checkable
class HasTranslation(Protocol):
    """An objective that turns given pictures into others; its examples are pairs side by side, see `data.pairs`.

    Its `sample` is given examples as `cond["x"]` [num, ...], and puts what it makes of them in their place.
    """

    def translate(
        self, params: Params, extra: Extra, batch: Batch, key: Key
    ) -> Mapping[str, Float[Array, "b h w c"]]:
        """Pictures by name.

        Returns:
            "input", what is made of it as "output", and the pair's "target"; "back", where there is a way back from the
            output; and where the other direction is learned too, the same names ending in "_reversed".
        """
        ...
