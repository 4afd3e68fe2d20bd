"""Autoregressive models: text, pixels, audio samples, codes, one element after the other.

    log p(x | c) = sum_i log p(x_i | x_1, ..., x_{i-1}, c),     loss = -mean_i log p(x_i | x_<i, c)  (nats per element).

The elements are those of the example, flattened with the last axis fastest. The network is causal: its output at a
place depends on its inputs at that place and earlier ones; its inputs are the elements one place later, after a start
symbol of the value `values`. The emission says what the output means: a logit for each value of the one element at a
place, or the distribution of all channels of a pixel. So p(x) is a distribution over all sequences, and `log_prob`
exact. Without `start` the first element is given: it is not predicted, and log p(x_2, ... | x_1) is what is reported.

What a batch has beside its examples: `mask` [b, *shape] says which elements count, in losses and probabilities; so the
probability of a document with its end is that of its row up to there. `segment` [b, n] says which elements are of one
document (`genjax.data.packing`): each begins with the start symbol (or its first element is given) and sees no other.

Samples come from the one decoding loop (`genjax.samplers.decoding`), by the network's `walker` where it has one.

Label smoothing (Szegedy et al. 2016, arXiv:1512.00567) trains on (1 - s) [x_i = k] + s / values, not on [x_i = k]; the
z-loss (Chowdhery et al. 2022, arXiv:2204.02311, section 5) adds z (log sum_k exp l_k)^2, which keeps logits near
normalised. In training is added what the network itself asks for (`objective.Penalised`: mixtures of experts).
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.conditioning.labels import condition_vector, training_vector
from genjax.core.arrays import sum_dims
from genjax.core.errors import UserError
from genjax.core.objective import Conditioner, Aux, Context, Network, Penalised, Player
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.distributions.outputs import Categorical, Emission
from genjax.networks.layers import segments
from genjax.networks.layers.incremental import Walker, naive
from genjax.networks.layers.kv_cache import Kind
from genjax.objectives.common import check_shape
from genjax.samplers.decoding import Decoding, Generated, Model, generate, guided
from genjax.samplers.decoding.model import of_walker


@dataclass(frozen=True)
class Autoregressive:
    """Learns to predict the next element, and draws elements one by one.

    Attributes:
        net: causal, called as net(x int32 [b, *grid, c], None, cond, out=(*grid, *features)), where places and
            features are the emission's: (n,), c = 1 and (1, values) for sequences and categorical elements.
        shape: of one example of integers 0 ... values - 1.
        values: how many values an element takes.
        emission: what the network's output says.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        start: whether the first element is predicted, after a start symbol, or given.
        first: the first element of samples that nothing else is given for, if not `start`.
        smoothing: label smoothing s.
        z_loss: weight z.
        guidance: scale of classifier-free guidance when sampling; 1 is the plain conditional model.
        decoding: how elements are chosen when sampling.
        stop: elements that end a sample.
        cached: walk the network place by place; without, it is run on everything for each element.
        kind: how what is cached is kept, where the network attends.
        weights: how a transformer's matrices are kept while it decodes.
    """

    net: Network
    shape: tuple[int, ...]
    values: int
    emission: Emission = Categorical()
    condition: Conditioner | None = None
    start: bool = True
    first: int = tunable(0)
    smoothing: float = 0.0
    z_loss: float = 0.0
    guidance: float = tunable(1.0)
    decoding: Decoding = tunable(Decoding())
    stop: tuple[int, ...] = tunable(())
    cached: bool = tunable(True)
    kind: Kind = tunable("float32")
    weights: Kind = tunable("float32")

    def __post_init__(self) -> None:
        if not self.start and len(self.shape) > 1:
            raise UserError("start=False, a given first element, is for sequences only")

    @property
    def grid(self) -> tuple[int, ...]:
        """The places of the network: those of the elements, or one less if the first is given."""
        *rows, last = self.emission.grid(self.shape)[0]
        return (*rows, last if self.start else last - 1)

    @property
    def turns(self) -> int:
        """Of the loop that draws a sample: one for each element."""
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """Elements at each place."""
        return self.emission.grid(self.shape)[1]

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """One player, `net`.

        Raises:
            UserError: the batch has another shape than `shape`, no integers, or documents that cannot be kept apart.
        """
        check_shape(self.shape, batch, self.condition)
        self._apart(batch)
        if not jnp.issubdtype(batch["x"].dtype, jnp.integer):
            raise UserError(
                "an autoregressive model needs integer data: leave out transforms such as Scale, or quantise"
            )
        cond = condition_vector(self.condition, batch, len(batch["x"]))
        return {"net": self.net.init(key, self._shifted(batch["x"]), None, cond, out=self._out)}, {}

    def players(self) -> Mapping[str, Player]:
        """One."""
        return {"net": Player(self.loss)}

    @property
    def _out(self) -> tuple[int, ...]:
        return (*self.grid, *self.emission.features(self.channels, self.values))

    def _apart(self, batch: Batch) -> dict[str, Array]:
        """What keeps the documents of a row apart, as the network takes it: `segment` [b, *grid, c], or nothing.

        Raises:
            UserError: there are several in a row, and the network cannot.
        """
        if "segment" not in batch:
            return {}
        if len(self.shape) != 1 or "segment" not in inspect.signature(type(self.net).__call__).parameters:
            raise UserError(
                f"{type(self.net).__name__} cannot keep packed documents apart: use TokenTransformer, or leave "
                "them unpacked (--config.data.source.packed=False)"
            )
        return {"segment": batch["segment"][:, : math.prod(self.grid), None]}

    def _shifted(self, x: Int[Array, "b ..."], segment: Array | None = None) -> Int[Array, "b ..."]:
        """What the network reads to predict x: [b, *grid, c]."""
        flat = x.reshape(len(x), -1, self.channels)
        if self.start:
            flat = jnp.pad(flat, ((0, 0), (1, 0), (0, 0)), constant_values=self.values)
            if segment is not None:
                first = segments.begins(segment[..., 0])[..., None]
                flat = flat.at[:, :-1].set(jnp.where(first, self.values, flat[:, :-1]))
        return flat[:, :-1].reshape(len(x), *self.grid, self.channels)

    def outputs(
        self, params: Params, x: Int[Array, "b ..."], cond: Float[Array, "b k"] | None = None, **options: Any
    ) -> Float[Array, "b n ..."]:
        """The network's output at each place, given what comes before it, float32 [b, places, *features]."""
        return self._charged(params, x, cond, **options)[0]

    def _charged(
        self, params: Params, x: Array, cond: Array | None, **options: Any
    ) -> tuple[Array, Array, Mapping[str, Array]]:
        """`outputs`, with what the network asks to be added to the loss, and what it says of itself."""
        read = self._shifted(x, options.get("segment"))
        call, options = (params["net"], read, None, cond), {"out": self._out, **options}
        if isinstance(self.net, Penalised):
            out, penalty, said = self.net.penalised(*call, **options)
        else:
            out, penalty, said = self.net.apply(*call, **options), jnp.zeros(()), {}
        out = out.reshape(len(x), math.prod(self.grid), *self._out[len(self.grid) :]).astype(jnp.float32)
        return out, penalty, said

    def _targets(self, x: Array) -> Array:
        """Elements that are predicted, [b, places, c]."""
        return x.reshape(len(x), -1, self.channels)[:, -math.prod(self.grid) :]

    def _counted(self, batch: Batch) -> Float[Array, "b n"]:
        """What part of the elements at each place counts."""
        counted = jnp.ones((len(batch["x"]), math.prod(self.grid)))
        if "mask" in batch:
            counted = jnp.mean(self._targets(batch["mask"]).astype(jnp.float32), axis=-1)
        if "segment" in batch and not self.start:
            counted = counted * ~segments.begins(batch["segment"])[:, 1:]
        return counted

    def elements(self, batch: Batch) -> Float[Array, " b"]:
        """How many elements of each example `log_prob` is of."""
        return self.channels * sum_dims(self._counted(batch))

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """Mean nats per element that counts.

        Raises:
            UserError: smoothing or the z-loss are asked for without an emission of logits.
        """
        x = batch["x"]
        cond = training_vector(self.condition, batch, ctx)
        options = {"train": True, "rngs": {"dropout": named(ctx.key, "dropout")}} if ctx.train else {}
        out, penalty, said = self._charged(params, x, cond, **options, **self._apart(batch))
        target = self._targets(x)
        nats = -self.emission.log_prob(out, target, self.values) / self.channels
        counted = self._counted(batch)
        mean = lambda values: jnp.sum(values * counted) / jnp.maximum(jnp.sum(counted), 1.0)
        loss = mean(nats)
        metrics = {"nats": loss, **said}
        if (self.smoothing or self.z_loss) and ctx.train:
            if not isinstance(self.emission, Categorical):
                raise UserError("label smoothing and the z-loss are for categorical elements")
            normaliser = jax.nn.logsumexp(out, axis=-1)
            uniform = mean(jnp.mean(normaliser - jnp.mean(out, axis=-1), axis=-1))
            loss = (1 - self.smoothing) * loss + self.smoothing * uniform
            loss = loss + self.z_loss * mean(jnp.mean(normaliser**2, axis=-1))
        return loss + penalty if ctx.train else loss, Aux(metrics)

    @property
    def log_prob_kind(self) -> str:
        """Exact; of the elements after the first if that is given."""
        return "exact" if self.start else "exact, given the first element"

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """Log-probability in nats of what counts in each example, given its label if there are labels."""
        x = batch["x"]
        out = self.outputs(params, x, condition_vector(self.condition, batch, len(x)), **self._apart(batch))
        return sum_dims(self.emission.log_prob(out, self._targets(x), self.values) * self._counted(batch))

    def model(self, params: Params, num: int, cond: Batch | None = None, slack: int = 0) -> Model:
        """What the decoding loop walks.

        Args:
            params: by player.
            num: rows.
            cond: has "label" int32 [num], or None.
            slack: tokens that it must be able to forget again.

        Returns:
            The model, guided if a label is given and `guidance` is not 1.
        """
        first = None if self.start else self.first

        def make(given: Batch | None) -> Model:
            walker = self._walker(params, condition_vector(self.condition, given, num), slack)
            logits = functools.partial(self.emission.logits, values=self.values)
            return of_walker(walker, logits, self.channels, self.values, first)

        if cond is None or self.condition is None:
            return make(None)
        return guided(make(cond), make(None), self.guidance) if self.guidance != 1.0 else make(cond)

    def ready(self, params: Params) -> Params:
        """The parameters as `model` reads them, which would else make them so in each call."""
        if not (self.cached and hasattr(self.net, "ready")):
            return params
        return {"net": self.net.ready(params["net"], self._out[-1], self.weights)}

    def _walker(self, params: Params, cond: Array | None, slack: int) -> Walker:
        if self.cached and hasattr(self.net, "walker"):
            kept = {"kind": self.kind, "weights": self.weights}
            options = {"out": self._out, "slack": slack, "channels": self.channels, **kept}
            return self.net.walker(params["net"], self.grid, cond, **options)

        def apply(x: Array) -> Array:
            y = self.net.apply(
                params["net"], x.reshape(len(x), *self.grid, self.channels), None, cond, out=self._out
            )
            return y.reshape(len(x), math.prod(self.grid), *self._out[len(self.grid) :])

        return naive(apply, math.prod(self.grid), self.channels)

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Int[Array, "b ..."]:
        """Draws examples, `cond["prompt"]` [num, p] going first if there is one; int32 [num, *shape].

        What comes after a stop element is 0.
        """
        done = self.generate(params, key, num, cond)
        there = jnp.arange(done.tokens.shape[1])[None] < done.length[:, None]
        return jnp.where(there, done.tokens, 0).reshape(num, *self.shape)

    def generate(self, params: Params, key: Key, num: int, cond: Batch | None = None) -> Generated:
        """Draws `num` sequences of the elements of an example, with their log-probabilities; see `sample`."""
        prompt, count = jnp.zeros((num, 0), jnp.int32), jnp.zeros(num, jnp.int32)
        if cond is not None and "prompt" in cond:
            prompt = cond["prompt"]
            count = cond.get("count", jnp.full(num, prompt.shape[1]))
        room = math.prod(self.shape)
        model = self.model(params, num, cond)
        return generate(model, self.decoding, named(key, "decode"), prompt, count, room, self.stop)

    def with_decoding(self, **changes: Any) -> "Autoregressive":
        """The same model with other knobs of decoding."""
        return dataclasses.replace(self, decoding=dataclasses.replace(self.decoding, **changes))
