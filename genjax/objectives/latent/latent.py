"""A generative model of a frozen autoencoder's latents: latent diffusion, the prior of a VQ-VAE or of a VQ-VAE-2.

    training   z = s E(x), and the model's own loss of z;       samples   D(z / s), z from the model

Real latents are scaled to unit variance, s = 1 / std of the first batch's z (Rombach et al. 2022, arXiv:2112.10752,
appendix G); codes are passed to the model as integers, and `training.encoded_data` can compute them once for all steps.
Samples are in data space, and so are metrics. If the model has a likelihood, with N real latents,

    log p(x)  >=  E_q [ log p(x|z) - log q(z|x) + log p_model(s z) + N log s ],

and for codes, where q is deterministic, without log q and s: a bound if log p_model is exact or a bound, an estimate of
it if log p_model is an estimate.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.objective import (
    Aux,
    Conditioner,
    Context,
    HasLatents,
    HasLogProb,
    HasPath,
    HasShape,
    HasValues,
    Objective,
    Player,
    Sampling,
    Weights,
    levels_of,
    require_samples,
)
from genjax.core.types import Array, Batch, Extra, Key, Params, PyTree, named
from genjax.data.codes import CODES, FINGERPRINT, fingerprint


@dataclass(frozen=True)
class Latent:
    """Trains a generative model on the latents of a trained autoencoder.

    Attributes:
        autoencoder: the trained objective.
        weights: the checkpoint with its parameters, read when the run starts; then kept in extra["autoencoder"].
        model: an objective for examples of the autoencoder's `latent_shape` and `values`.
    """

    autoencoder: Objective
    weights: Weights
    model: Objective

    @property
    def condition(self) -> Conditioner | None:
        """The model's."""
        return self.model.condition

    @property
    def _coder(self) -> HasLatents:
        """The autoencoder, checked against the model.

        Raises:
            UserError: it has no latents, or the model is for latents of another shape or number of values.
        """
        coder, shape = self.autoencoder, self.model.shape if isinstance(self.model, HasShape) else None
        if not isinstance(coder, HasLatents):
            raise UserError(f"objective.autoencoder is a {type(coder).__name__}, which has no latents")
        if shape is not None and tuple(shape) != coder.latent_shape:
            written = ",".join(map(str, coder.latent_shape))
            raise UserError(
                f"the latents have another shape than the model: set config.objective.model.shape={written}"
            )
        if coder.values and isinstance(self.model, HasValues) and coder.values != self.model.values:
            raise UserError(
                "the codes have another number of values than the model: "
                f"set config.objective.model.values={coder.values}"
            )
        return coder

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """The model's players; extra holds the autoencoder, its fingerprint, the scale and the model's own extra."""
        coder = self._coder
        params, more = self.weights.load(self.autoencoder, key, batch)
        frozen = {"params": dict(params), "extra": dict(more)}
        z, scale = coder.encode(params, more, batch, named(key, "latents")), jnp.ones(())
        if not coder.values:
            scale = 1.0 / jnp.maximum(jnp.std(z), 1e-6)
            z = scale * z
        own, extra = self.model.init(named(key, "model"), {**batch, "x": z})
        mark = fingerprint((params, more))
        return own, {"autoencoder": frozen, "scale": scale, "fingerprint": mark, "model": dict(extra)}

    def players(self) -> Mapping[str, Player]:
        """The model's players, with losses on latents."""
        return {
            name: Player(self._on_latents(player.loss), player.every, self._on_latents(player.update))
            for name, player in self.model.players().items()
        }

    def _on_latents(self, function: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """A player's loss or update, of the latents in place of the data."""
        if function is None:
            return None

        def of_latents(params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Any, Aux]:
            seen = {**batch, "x": self.encode(params, extra, batch, named(ctx.key, "latents"))}
            value, aux = function(params, extra["model"], seen, ctx)
            changed = {"model": {**extra["model"], **aux.extra}} if aux.extra else {}
            return value, dataclasses.replace(aux, extra=changed)

        return of_latents

    def _scaled(self, z: Array, factor: Array) -> Array:
        return z if self._coder.values else factor * z

    def _frozen(self, extra: Extra) -> tuple[PyTree, PyTree]:
        held = jax.lax.stop_gradient(extra["autoencoder"])
        return held["params"], held["extra"]

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The autoencoder's."""
        return self._coder.latent_shape

    @property
    def values(self) -> int:
        """The autoencoder's."""
        return self._coder.values

    def encode(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Array:
        """The model's input: scaled latents, or codes, cached ones if the batch has them with this fingerprint.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape]; optionally cached codes and their fingerprint.
            key: typed PRNG key.

        Returns:
            z [b, *latent_shape].
        """

        def encoded() -> Array:
            z = self._coder.encode(*self._frozen(extra), batch, key)
            return jax.lax.stop_gradient(self._scaled(z, extra["scale"]))

        if not (self._coder.values and CODES in batch):
            return encoded()
        valid = jnp.all(batch[FINGERPRINT] == extra["fingerprint"])
        return jax.lax.cond(valid, lambda: batch[CODES], encoded)

    def decode(self, params: Params, extra: Extra, z: Array, key: Key, cond: Batch | None = None) -> PyTree:
        """Decodes scaled latents or codes.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            z: [b, *latent_shape].
            key: typed PRNG key.
            cond: `"label"` int32 [b], or None.

        Returns:
            Data [b, *shape].
        """
        return self._coder.decode(*self._frozen(extra), self._scaled(z, 1.0 / extra["scale"]), key, cond)

    def log_decode(
        self, params: Params, extra: Extra, batch: Batch, key: Key
    ) -> tuple[Array, Float[Array, " b"]]:
        """Encodes, with the terms of the bound that do not depend on the model.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            key: typed PRNG key.

        Returns:
            (scaled latents [b, *latent_shape], their log p(x|z) - log q(z|x) in nats [b]).
        """
        z, given = self._coder.log_decode(*self._frozen(extra), batch, key)
        if not self._coder.values:
            given = given + math.prod(self._coder.latent_shape) * jnp.log(extra["scale"])
        return self._scaled(z, extra["scale"]), given

    @property
    def sampling(self) -> Sampling:
        """The model's."""
        return require_samples(self.model).sampling

    def sample(self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None) -> Any:
        """Decodes the model's samples.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            key: typed PRNG key.
            num: number of samples.
            cond: `"label"` int32 [num], or None to sample unconditionally.

        Returns:
            Data [num, *shape].
        """
        z = require_samples(self.model).sample(params, extra["model"], named(key, "model"), num, cond)
        return self.decode(params, extra, z, named(key, "decode"), cond)

    def path(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> tuple[Float[Array, " n"], Any]:
        """The model's states, decoded.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            key: typed PRNG key.
            num: number of samples.
            cond: as for `sample`.

        Returns:
            (times [n], states [n, num, *shape]); the last state equals `sample`.

        Raises:
            UserError: the model draws without a path.
        """
        if not isinstance(self.model, HasPath):
            raise UserError(f"{type(self.model).__name__} samples in one step: there is no path to trace")
        times, states = self.model.path(params, extra["model"], named(key, "model"), num, cond)
        if self._coder.values:
            states = jnp.minimum(states, self._coder.values - 1)  # a masked code has no picture
        draw = lambda z: self.decode(params, extra, z, named(key, "decode"), cond)
        return times, jax.lax.map(draw, states)

    @property
    def levels(self) -> int:
        """Those of the autoencoder's likelihood."""
        return levels_of(self.autoencoder)

    @property
    def log_prob_kind(self) -> str:
        """The bound on log p(x) and the kind of log p(z); empty if the model has no likelihood."""
        inner = self.model.log_prob_kind if isinstance(self.model, HasLogProb) else ""
        if not inner:
            return ""
        bound = "its own codes" if self._coder.values else "ELBO"
        if "exact" in inner or "bound" in inner:
            return f"lower bound ({bound}; latents: {inner})"
        return f"{inner} of a lower bound ({bound})"

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """The bound from one draw of z per example.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            key: typed PRNG key.

        Returns:
            Nats [b].
        """
        assert isinstance(self.model, HasLogProb)
        z, given = self.log_decode(params, extra, batch, named(key, "latents"))
        return given + self.model.log_prob(params, extra["model"], {**batch, "x": z}, named(key, "model"))
