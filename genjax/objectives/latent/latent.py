"""A generative model of a frozen autoencoder's latents: latent diffusion, the prior of a VQ-VAE or of a VQ-VAE-2.

    training   z = s E(x), and the model's own loss of z;       samples   D(z / s), z from the model

Real latents are scaled to unit variance, s = 1 / std of the first batch's z (Rombach et al. 2022, arXiv:2112.10752,
appendix G); codes are the model's integers as they are, and `encoded` can make them once for all steps. Samples are in
data space, and so is what is measured of them. Where the model has a likelihood, with N real latents,

    log p(x)  >=  E_q [ log p(x|z) - log q(z|x) + log p_model(s z) + N log s ],

and for codes, of which q is certain, without log q and s: a bound if log p_model is exact or a bound, and an estimate
of it if that is one.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.objective import Aux, Context, HasLatents, HasLogProb, Objective, Player
from genjax.core.types import Array, Batch, Extra, Key, Params, PyTree, named
from genjax.data.codes import CODES, FINGERPRINT, fingerprint
from genjax.training.pretrained import Pretrained


@dataclass(frozen=True)
class Latent:
    """Learns the latents of a trained autoencoder.

    Attributes:
        autoencoder: what was trained.
        weights: where its parameters lie when a run begins; they are carried in extra["autoencoder"].
        model: of the latents: an objective for examples of the autoencoder's `latent_shape`, of its `values`.
    """

    autoencoder: Objective
    weights: Pretrained
    model: Objective

    @property
    def classes(self) -> int:
        """Number of labels that the model is given."""
        return getattr(self.model, "classes", 0)

    @property
    def _coder(self) -> HasLatents:
        """The autoencoder, as such.

        Raises:
            UserError: it is none, or the model is for other latents.
        """
        coder, shape = self.autoencoder, getattr(self.model, "shape", None)
        if not isinstance(coder, HasLatents):
            raise UserError(f"objective.autoencoder is a {type(coder).__name__}, which has no latents")
        if shape is not None and tuple(shape) != coder.latent_shape:
            written = ",".join(map(str, coder.latent_shape))
            raise UserError(f"the latents have another shape: set --config.objective.model.shape={written}")
        if coder.values and coder.values != getattr(self.model, "values", coder.values):
            raise UserError(f"codes have other values: set --config.objective.model.values={coder.values}")
        return coder

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """The model's players; the autoencoder, its fingerprint, the scale and the model's own extra are carried."""
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
        """The model's, given latents."""
        return {name: Player(self._of(player), player.every) for name, player in self.model.players().items()}

    def _of(self, player: Player) -> Callable[..., tuple[Array, Aux]]:
        def loss(params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
            seen = {**batch, "x": self.encode(params, extra, batch, named(ctx.key, "latents"))}
            value, aux = player.loss(params, extra["model"], seen, ctx)
            changed = {"model": {**extra["model"], **aux.extra}} if aux.extra else {}
            return value, Aux(aux.metrics, changed)

        return loss

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
    def turns(self) -> int:
        """The model's, of the loop that draws a sample; 0 where it has none of its own length."""
        return getattr(self.model, "turns", 0)

    @property
    def values(self) -> int:
        """The autoencoder's."""
        return self._coder.values

    def encode(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Array:
        """The latents as the model sees them: codes, the batch's own if they are this autoencoder's; or scaled."""

        def encoded() -> Array:
            z = self._coder.encode(*self._frozen(extra), batch, key)
            return jax.lax.stop_gradient(self._scaled(z, extra["scale"]))

        if not (self._coder.values and CODES in batch):
            return encoded()
        valid = jnp.all(batch[FINGERPRINT] == extra["fingerprint"])
        return jax.lax.cond(valid, lambda: batch[CODES], encoded)

    def decode(self, params: Params, extra: Extra, z: Array, key: Key, cond: Batch | None = None) -> PyTree:
        """The autoencoder's data of scaled latents."""
        return self._coder.decode(*self._frozen(extra), self._scaled(z, 1.0 / extra["scale"]), key, cond)

    def log_decode(
        self, params: Params, extra: Extra, batch: Batch, key: Key
    ) -> tuple[Array, Float[Array, " b"]]:
        """Scaled latents, and log p(x|z) - log q(z|x) of them in nats."""
        z, given = self._coder.log_decode(*self._frozen(extra), batch, key)
        if not self._coder.values:
            given = given + math.prod(self._coder.latent_shape) * jnp.log(extra["scale"])
        return self._scaled(z, extra["scale"]), given

    def sample(self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None) -> Any:
        """Decodes the model's samples."""
        z = self.model.sample(params, extra["model"], named(key, "model"), num, cond)
        return self.decode(params, extra, z, named(key, "decode"), cond)

    @property
    def log_prob_kind(self) -> str:
        """What log p(x) is bounded by, and of what kind log p(z) is; empty where the model has none."""
        inner = self.model.log_prob_kind if isinstance(self.model, HasLogProb) else ""
        if not inner:
            return ""
        bound = "its own codes" if self._coder.values else "ELBO"
        if "exact" in inner or "bound" in inner:
            return f"lower bound ({bound}; latents: {inner})"
        return f"{inner} of a lower bound ({bound})"

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """One draw of the bound for each example, in nats."""
        assert isinstance(self.model, HasLogProb)
        z, given = self.log_decode(params, extra, batch, named(key, "latents"))
        return given + self.model.log_prob(params, extra["model"], {**batch, "x": z}, named(key, "model"))
