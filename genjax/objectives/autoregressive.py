"""Autoregressive models of sequences: text, pixels, audio samples, codes.

    log p(x | c) = sum_i log p(x_i | x_1, ..., x_{i-1}, c),     loss = -mean_i log p(x_i | x_<i, c)  (nats per element).

The elements are those of the example, flattened with the last axis fastest. The network is causal: its output at a
place depends on its inputs at that place and earlier ones; its inputs are the elements shifted by one place, after a
start symbol of the value `values`. The output distribution maps the network's output to a logit for each value of one
element, or to a distribution of all channels of a pixel. So p(x) is normalised over all sequences, and `log_prob` is
exact. Without `start` the first element is given: it is not predicted, and log p(x_2, ... | x_1) is reported.

Optional entries of a batch: `mask` [b, *shape] selects the elements that count in losses and probabilities, for example
those up to the end of a document. `segment` [b, n] numbers the documents of a packed row (`genjax.data.packing`): each
starts with the start symbol (or its first element is given) and sees no other.

Samples come from the decoding loop of `genjax.samplers.decoding`, incrementally if the network is `Incremental`.

Label smoothing (Szegedy et al. 2016, arXiv:1512.00567) trains on targets (1 - s) [x_i = k] + s / values; the
z-loss (Chowdhery et al. 2022, arXiv:2204.02311, section 5) adds z (log sum_k exp l_k)^2, which keeps logits nearly
normalised. In training the network's own penalty is added (`objective.Penalised`: mixtures of experts).
"""

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
from genjax.core.objective import Aux, Conditioner, Context, Network, Penalised, Player, Sampling
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.distributions.outputs import Categorical, OutputDistribution
from genjax.networks.layers import segments
from genjax.networks.layers.incremental import Incremental, IncrementalDecoder, Packs, naive
from genjax.networks.layers.kv_cache import Kind
from genjax.objectives.common import check_shape
from genjax.samplers.decoding import Decoding, Generated, Model, generate, guided
from genjax.samplers.decoding.model import of_incremental


@dataclass(frozen=True)
class Autoregressive:
    """Predicts the next element; samples element by element.

    Attributes:
        net: causal, called as net(x int32 [b, *grid, c], None, cond, out=(*grid, *features)), where grid, c and
            features are those of `output`: (n,), 1 and (1, values) for sequences and categorical elements.
        shape: shape of an example of integers 0 ... values - 1.
        values: number of values of an element.
        output: output distribution, see `genjax.distributions.outputs`.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        start: whether the first element is predicted (after a start symbol) or given.
        first: first element of samples without a prompt, if not `start`.
        smoothing: label smoothing s.
        z_loss: weight z.
        guidance: scale of classifier-free guidance when sampling; 1 is the conditional model.
        decoding: how elements are chosen when sampling.
        stop: elements that end a sample.
        cached: decode incrementally; otherwise the network runs on the whole sequence for each element.
        kind: storage dtype of a transformer's key-value cache.
        weights: storage dtype of a transformer's matrices while decoding.
    """

    net: Network
    shape: tuple[int, ...]
    values: int
    output: OutputDistribution = Categorical()
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
        """Shape of the places of the network: one less along the last axis if the first element is given."""
        *rows, last = self.output.grid(self.shape)[0]
        return (*rows, last if self.start else last - 1)

    @property
    def channels(self) -> int:
        """Number of elements at each place."""
        return self.output.grid(self.shape)[1]

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """One player, `net`.

        Raises:
            UserError: the batch has another shape than `shape`, is not of integers, or is packed and the network
                does not support it.
        """
        check_shape(self.shape, batch, self.condition)
        self._segments(batch)
        if not jnp.issubdtype(batch["x"].dtype, jnp.integer):
            raise UserError(
                "an autoregressive model needs integer data: remove transforms such as Scale, or quantise"
            )
        cond = condition_vector(self.condition, batch, len(batch["x"]))
        return {"net": self.net.init(key, self._shifted(batch["x"]), None, cond, out=self._out)}, {}

    def players(self) -> Mapping[str, Player]:
        """One player, `net`."""
        return {"net": Player(self.loss)}

    @property
    def _out(self) -> tuple[int, ...]:
        return (*self.grid, *self.output.features(self.channels, self.values))

    def _segments(self, batch: Batch) -> dict[str, Array]:
        """Options that separate packed documents: `segment` [b, *grid, c], or none.

        Raises:
            UserError: the batch is packed, and the network has no `segment`.
        """
        if "segment" not in batch:
            return {}
        if len(self.shape) != 1 or "segment" not in inspect.signature(type(self.net).__call__).parameters:
            raise UserError(
                f"{type(self.net).__name__} cannot separate packed documents: use TokenTransformer, or do not "
                "pack them (config.data.source.packed=False)"
            )
        return {"segment": batch["segment"][:, : math.prod(self.grid), None]}

    def _shifted(self, x: Int[Array, "b ..."], segment: Array | None = None) -> Int[Array, "b ..."]:
        """The network's inputs: x shifted by one place, [b, *grid, c]."""
        flat = x.reshape(len(x), -1, self.channels)
        if self.start:
            flat = jnp.pad(flat, ((0, 0), (1, 0), (0, 0)), constant_values=self.values)
            if segment is not None:
                first = segments.starts(segment[..., 0])[..., None]
                flat = flat.at[:, :-1].set(jnp.where(first, self.values, flat[:, :-1]))
        return flat[:, :-1].reshape(len(x), *self.grid, self.channels)

    def outputs(
        self, params: Params, x: Int[Array, "b ..."], cond: Float[Array, "b k"] | None = None, **options: Any
    ) -> Float[Array, "b n ..."]:
        """The network's output at each place, given the elements before it.

        Args:
            params: by player.
            x: examples.
            cond: conditioning vector, or None.
            **options: passed to the network.

        Returns:
            float32 [b, places, *features].
        """
        return self._with_penalty(params, x, cond, **options)[0]

    def _with_penalty(
        self, params: Params, x: Array, cond: Array | None, **options: Any
    ) -> tuple[Array, Array, Mapping[str, Array]]:
        """(`outputs`, the network's penalty, the network's metrics)."""
        read = self._shifted(x, options.get("segment"))
        call, options = (params["net"], read, None, cond), {"out": self._out, **options}
        if isinstance(self.net, Penalised):
            out, penalty, net_metrics = self.net.penalised(*call, **options)
        else:
            out, penalty, net_metrics = self.net.apply(*call, **options), jnp.zeros(()), {}
        out = out.reshape(len(x), math.prod(self.grid), *self._out[len(self.grid) :]).astype(jnp.float32)
        return out, penalty, net_metrics

    def _targets(self, x: Array) -> Array:
        """The predicted elements, [b, places, c]."""
        return x.reshape(len(x), -1, self.channels)[:, -math.prod(self.grid) :]

    def _counted(self, batch: Batch) -> Float[Array, "b n"]:
        """Fraction of the elements at each place that count."""
        counted = jnp.ones((len(batch["x"]), math.prod(self.grid)))
        if "mask" in batch:
            counted = jnp.mean(self._targets(batch["mask"]).astype(jnp.float32), axis=-1)
        if "segment" in batch and not self.start:
            counted = counted * ~segments.starts(batch["segment"])[:, 1:]
        return counted

    def elements(self, batch: Batch) -> Float[Array, " b"]:
        """Number of elements of each example that `log_prob` covers."""
        return self.channels * sum_dims(self._counted(batch))

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """Mean nats per counted element.

        Args:
            params: by player.
            extra: unused.
            batch: "x", and optionally "label", "mask", "segment".
            ctx: key and mode.

        Returns:
            (loss, metrics): the loss includes label smoothing and penalties in training, "nats" does not. The weight
            is the number of counted places.

        Raises:
            UserError: smoothing or z-loss with an output distribution other than `Categorical`.
        """
        x = batch["x"]
        cond = training_vector(self.condition, batch, ctx)
        options = {"train": True, "rngs": {"dropout": named(ctx.key, "dropout")}} if ctx.train else {}
        out, penalty, net_metrics = self._with_penalty(params, x, cond, **options, **self._segments(batch))
        target = self._targets(x)
        nats = -self.output.log_prob(out, target, self.values) / self.channels
        counted = self._counted(batch)
        total = jnp.sum(counted)
        mean = lambda values: jnp.sum(values * counted) / jnp.where(total > 0, total, 1.0)
        loss = mean(nats)
        metrics = {"nats": loss, **net_metrics}
        if (self.smoothing or self.z_loss) and ctx.train:
            if not isinstance(self.output, Categorical):
                raise UserError("label smoothing and the z-loss are for categorical elements")
            normaliser = jax.nn.logsumexp(out, axis=-1)
            uniform = mean(jnp.mean(normaliser - jnp.mean(out, axis=-1), axis=-1))
            loss = (1 - self.smoothing) * loss + self.smoothing * uniform
            loss = loss + self.z_loss * mean(jnp.mean(normaliser**2, axis=-1))
        return loss + penalty if ctx.train else loss, Aux(metrics, weight=total)

    @property
    def log_prob_kind(self) -> str:
        """Exact; for the elements after the first if that is given."""
        return "exact" if self.start else "exact, given the first element"

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """Exact log-probability of the counted elements of each example, given its label if there are labels.

        Args:
            params: by player.
            extra: unused.
            batch: "x", and optionally "label", "mask", "segment".
            key: unused.

        Returns:
            Nats, float32.
        """
        x = batch["x"]
        out = self.outputs(
            params, x, condition_vector(self.condition, batch, len(x)), **self._segments(batch)
        )
        return sum_dims(self.output.log_prob(out, self._targets(x), self.values) * self._counted(batch))

    def model(self, params: Params, num: int, cond: Batch | None = None, slack: int = 0) -> Model:
        """The model for the decoding loop.

        Args:
            params: by player, or from `ready`.
            num: number of rows.
            cond: has "label" int32 [num], or None.
            slack: number of tokens that it must be able to rewind.

        Returns:
            The model, with guidance if a label is given and `guidance` is not 1.
        """
        first = None if self.start else self.first

        def make(given: Batch | None) -> Model:
            decoder = self._incremental(params, condition_vector(self.condition, given, num), slack)
            logits = functools.partial(self.output.logits, values=self.values)
            return of_incremental(decoder, logits, self.channels, self.values, first)

        if cond is None or self.condition is None:
            return make(None)
        return guided(make(cond), make(None), self.guidance) if self.guidance != 1.0 else make(cond)

    def ready(self, params: Params) -> Params:
        """Converts the parameters for `model`, which otherwise converts them in each call."""
        if not (self.cached and isinstance(self.net, Packs)):
            return params
        return {"net": self.net.ready(params["net"], self._out[-1], self.weights)}

    def _incremental(self, params: Params, cond: Array | None, slack: int) -> IncrementalDecoder:
        if self.cached and isinstance(self.net, Incremental):
            options: dict[str, Any] = {"slack": slack, "channels": self.channels}
            options |= {"kind": self.kind, "weights": self.weights}
            return self.net.incremental(params["net"], self.grid, cond, out=self._out, **options)

        def apply(x: Array) -> Array:
            y = self.net.apply(
                params["net"], x.reshape(len(x), *self.grid, self.channels), None, cond, out=self._out
            )
            return y.reshape(len(x), math.prod(self.grid), *self._out[len(self.grid) :])

        return naive(apply, math.prod(self.grid), self.channels)

    @property
    def sampling(self) -> Sampling:
        """One element at a time."""
        return Sampling("autoregressive decoding", math.prod(self.shape), math.prod(self.grid), True)

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Int[Array, "b ..."]:
        """Draws examples; a stop element is repeated to the end.

        Args:
            params: by player.
            extra: unused.
            key: typed PRNG key.
            num: number of examples.
            cond: "label" [num]; "prompt" [num, p], the first elements, and "count" [num], their number. Or None.

        Returns:
            int32 [num, *shape].
        """
        done = self.generate(params, key, num, cond)
        last = done.length[:, None] - 1
        place = jnp.minimum(jnp.arange(done.tokens.shape[1])[None], last)
        return jnp.take_along_axis(done.tokens, place, axis=1).reshape(num, *self.shape)

    def begun(
        self, prompt: Int[Array, "b p"], count: Int[Array, " b"]
    ) -> tuple[Int[Array, "b q"], Int[Array, " b"]]:
        """Prompts as the network needs them: one without elements begins with `first`, unless that is predicted.

        Args:
            prompt: the first elements, left-aligned.
            count: their number.

        Returns:
            (prompt, count).
        """
        if self.start:
            return prompt, count
        if not prompt.shape[1]:
            prompt = jnp.zeros((len(prompt), 1), prompt.dtype)
        begin = jnp.where(count > 0, prompt[:, 0], self.first)
        return prompt.at[:, 0].set(begin), jnp.maximum(count, 1)

    def generate(self, params: Params, key: Key, num: int, cond: Batch | None = None) -> Generated:
        """Draws flattened examples with their log-probabilities.

        Args:
            params: by player.
            key: typed PRNG key.
            num: number of examples.
            cond: see `sample`.

        Returns:
            The sequences, see `Generated`.
        """
        prompt, count = jnp.zeros((num, 0), jnp.int32), jnp.zeros(num, jnp.int32)
        if cond is not None and "prompt" in cond:
            prompt = cond["prompt"]
            count = cond.get("count", jnp.full(num, prompt.shape[1]))
        max_length = math.prod(self.shape)
        model, (prompt, count) = self.model(params, num, cond), self.begun(prompt, count)
        return generate(model, self.decoding, named(key, "decode"), prompt, count, max_length, self.stop)
