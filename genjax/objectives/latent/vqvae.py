"""Autoencoders with discrete latents: VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937), dVAE, FSQ, LFQ, RVQ.

    loss = -log p(x | Q(E(x))) / D + cost,      D dimensions of x, nats per dimension,

with E the encoder, Q one of `vector_quantizers` with its cost. The default likelihood N(., 1/2) makes the first term
the mean squared error (plus a constant). The prior of the codes is uniform here; `latent` trains one afterwards. As Q
is deterministic, for N codes of K values (section 3.2)

    log p(x)  >=  log p(x | Q(E(x))) - N log K.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.objective import Aux, Context, Mean, Network, Player, levels_of
from genjax.core.types import Array, Batch, Extra, Key, Params, PyTree, named
from genjax.distributions import likelihoods
from genjax.distributions.likelihoods import FittedScale, Gaussian, Likelihood
from genjax.networks.vector_quantizers import MovingCodebook, Quantized, Quantizer, code_statistics, usage
from genjax.objectives.common import check_shape
from genjax.objectives.latent.discrete import DiscreteLatents

MSE = Gaussian(std=0.5**0.5)


@dataclass(frozen=True)
class VQVAE(DiscreteLatents):
    """Codes on a grid, and their decoder.

    Attributes:
        encoder: called as encoder(x, out=(*grid, features)).
        decoder: called as decoder(z [b, *grid, d], out=likelihood.outputs(shape)).
        shape: of one example.
        grid: spatial shape of the codes.
        quantizer: features to codes and back.
        likelihood: p(x|z).
    """

    encoder: Network
    decoder: Network
    shape: tuple[int, ...]
    grid: tuple[int, ...]
    quantizer: Quantizer = MovingCodebook()
    likelihood: Likelihood | FittedScale = MSE

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The grid, and the number of codes at each position."""
        return (*self.grid, self.quantizer.stack)

    @property
    def values(self) -> int:
        """Number of values of each code."""
        return self.quantizer.values

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Initialises the player `vqvae`; the quantizer's carried state is extra["quantizer"]."""
        check_shape(self.shape, batch)
        encoder = self.encoder.init(named(key, "encoder"), batch["x"], out=self._features)
        z = self.encoder.apply(encoder, batch["x"], out=self._features)
        own, carried = self.quantizer.init(named(key, "quantizer"), z)
        z = self.quantizer.quantize(own, carried, z, key, None).z
        decoder = self.decoder.init(named(key, "decoder"), z, out=self.likelihood.outputs(self.shape))
        params = {"encoder": encoder, "decoder": decoder} | ({"quantizer": own} if own else {})
        extra = {"quantizer": carried} if carried else {}
        return {"vqvae": params}, {**extra, **likelihoods.init_extra(self.likelihood)}

    def players(self) -> Mapping[str, Player]:
        """One player, `vqvae`."""
        return {"vqvae": Player(self.loss)}

    @property
    def _features(self) -> tuple[int, ...]:
        return (*self.grid, self.quantizer.features)

    def _quantizer(self, params: Params, extra: Extra) -> tuple[PyTree, PyTree]:
        return params["vqvae"].get("quantizer", {}), extra.get("quantizer", {})

    def quantize(
        self, params: Params, extra: Extra, x: Float[Array, "b ..."], key: Key, step: Array | None
    ) -> Quantized:
        """Encodes and quantizes.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            x: data [b, *shape].
            key: typed PRNG key.
            step: training step; None in evaluation.

        Returns:
            See `Quantized`.
        """
        z = self.encoder.apply(params["vqvae"]["encoder"], x, out=self._features)
        return self.quantizer.quantize(*self._quantizer(params, extra), z, key, step)

    def outputs(self, params: Params, z: Float[Array, "b ..."]) -> Array:
        """The likelihood's parameters given quantized features."""
        out = self.likelihood.outputs(self.shape)
        return self.decoder.apply(params["vqvae"]["decoder"], z, out=out)

    def losses(
        self, params: Params, extra: Extra, batch: Batch, ctx: Context
    ) -> tuple[Array, Array, Array, Aux]:
        """The terms of the loss.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            ctx: PRNG key, step, and whether this is training.

        Returns:
            (reconstruction in nats per dimension, the quantizer's cost, x_hat drawn from the likelihood,
            metrics and extra). Those of the codes, `perplexity` and `used`, are of all combined batches.
        """
        x, step = batch["x"], ctx.step if ctx.train else None
        found = self.quantize(params, extra, x, named(ctx.key, "quantize"), step)
        out = self.outputs(params, found.z)
        likelihood, fitted = likelihoods.fit_scale(self.likelihood, extra, out, x, ctx.train)
        reconstruction = -jnp.mean(likelihood.log_prob(out, x)) / math.prod(self.shape)
        drawn = likelihood.sample(out, named(ctx.key, "likelihood"))
        codes = Mean(usage(found.codes, self.values), float(found.codes.size), code_statistics)
        metrics = {"mse": jnp.mean((drawn - x) ** 2), "cost": found.cost, "codes": codes}
        carried = {"quantizer": found.carried} if "quantizer" in extra else {}
        return reconstruction, found.cost, drawn, Aux(metrics, {**carried, **fitted})

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """-log p(x|z) / D + cost, nats per dimension.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            ctx: PRNG key, step, and whether this is training.

        Returns:
            (scalar loss, metrics and new extra).
        """
        reconstruction, cost, _, aux = self.losses(params, extra, batch, ctx)
        return reconstruction + cost, aux

    @property
    def levels(self) -> int:
        """Those of the likelihood, see `core.objective.HasLevels`."""
        return levels_of(self.likelihood)

    def encode(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Int[Array, "b *grid m"]:
        """The codes.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            key: typed PRNG key.

        Returns:
            int32 [b, *latent_shape].
        """
        return self.quantize(params, extra, batch["x"], key, None).codes

    def decode(
        self, params: Params, extra: Extra, z: Int[Array, "b *grid m"], key: Key, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Samples from p(x | codes): its mean, unless the likelihood is `noisy`.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            z: codes int32 [b, *latent_shape].
            key: typed PRNG key.
            cond: unused: the model is unconditional.

        Returns:
            [b, *shape].
        """
        out = self.outputs(params, self.quantizer.lookup(*self._quantizer(params, extra), z))
        return likelihoods.fitted(self.likelihood, extra).sample(out, named(key, "likelihood"))

    def log_decode(
        self, params: Params, extra: Extra, batch: Batch, key: Key
    ) -> tuple[Int[Array, "b *grid m"], Float[Array, " b"]]:
        """Encodes, with the log-likelihood of the data given the codes.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            key: typed PRNG key.

        Returns:
            (codes int32 [b, *latent_shape], log p(x | codes) in nats [b]).
        """
        found = self.quantize(params, extra, batch["x"], key, None)
        out = self.outputs(params, found.z)
        return found.codes, likelihoods.fitted(self.likelihood, extra).log_prob(out, batch["x"])
