"""VQ-VAE-2 (Razavi et al. 2019, arXiv:1906.00446): codes on a coarse grid, and on a fine one given the coarse.

    features  h = E(x),                                    fine grid
    top       e_t = Q_t( E_t(h) ),                         coarse grid
    bottom    e_b = Q_b( J([h, D_t(e_t)]) ),               fine grid
    image     D([e_b, D_t(e_t)])                                                    (section 3.1, figure 2a)

with loss = -log p(x|z) / D + both costs. The paper upsamples e_t for the decoder; here the decoder gets D_t(e_t). As
latents the codes form one sequence, top first, so an autoregressive prior of it is p(top) p(bottom | top). Both
quantizers have the same number of values, so that all elements of the sequence do.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.errors import UserError
from genjax.core.objective import Aux, Context, Mean, Network, Player, levels_of
from genjax.core.types import Array, Batch, Extra, Key, Params, PyTree, named
from genjax.distributions import likelihoods
from genjax.distributions.likelihoods import FittedScale, Likelihood
from genjax.networks.vector_quantizers import MovingCodebook, Quantized, Quantizer, code_statistics, usage
from genjax.objectives.common import check_shape
from genjax.objectives.latent.discrete import DiscreteLatents
from genjax.objectives.latent.vqvae import MSE

LEVELS = ("top", "bottom")


def _statistics(level: str, shares: Array) -> dict[str, Array]:
    return {f"{name}_{level}": value for name, value in code_statistics(shares).items()}


REPORTS = {level: functools.partial(_statistics, level) for level in LEVELS}


@dataclass(frozen=True)
class VQVAE2(DiscreteLatents):
    """Codes on two grids, and their decoder.

    Attributes:
        encoder: E, called as encoder(x, out=(*grid, width)).
        top_encoder: E_t, called as top_encoder(h, out=(*top_grid, features)).
        top_decoder: D_t, called as top_decoder(e_t, out=(*grid, width)).
        join: J, keeps the grid; called as join(maps, out=(*grid, features)).
        decoder: D, called as decoder(maps, out=likelihood.outputs(shape)).
        shape: of one example.
        grid: spatial shape of the bottom codes.
        top_grid: spatial shape of the top codes.
        width: features of h and of D_t.
        top: quantizer of the coarse grid.
        bottom: quantizer of the fine grid.
        likelihood: p(x|z).
    """

    encoder: Network
    top_encoder: Network
    top_decoder: Network
    join: Network
    decoder: Network
    shape: tuple[int, ...]
    grid: tuple[int, ...]
    top_grid: tuple[int, ...]
    width: int = 32
    top: Quantizer = MovingCodebook()
    bottom: Quantizer = MovingCodebook()
    likelihood: Likelihood | FittedScale = MSE

    def __post_init__(self) -> None:
        if self.top.values != self.bottom.values:
            raise UserError(
                f"top has {self.top.values} values and bottom {self.bottom.values}: they must be equal"
            )

    @property
    def _counts(self) -> tuple[int, int]:
        """Number of codes per example at each level."""
        return math.prod(self.top_grid) * self.top.stack, math.prod(self.grid) * self.bottom.stack

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The length of the sequence of all codes, top first."""
        return (sum(self._counts),)

    @property
    def values(self) -> int:
        """Number of values of each code."""
        return self.top.values

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Initialises the player `vqvae`; the quantizers' carried state is extra["top"] and extra["bottom"]."""
        check_shape(self.shape, batch)
        params: dict[str, PyTree] = {}
        extra: dict[str, PyTree] = {}

        def network(name: str, net: Network, x: Array, out: tuple[int, ...]) -> Array:
            params[name] = net.init(named(key, name), x, out=out)
            return net.apply(params[name], x, out=out)

        def quantizer(name: str, quantizer: Quantizer, z: Array) -> Array:
            own, carried = quantizer.init(named(key, name), z)
            params.update({name: own} if own else {})
            extra.update({name: carried} if carried else {})
            return quantizer.quantize(own, carried, z, key, None).z

        h = network("encoder", self.encoder, batch["x"], (*self.grid, self.width))
        z = network("top_encoder", self.top_encoder, h, (*self.top_grid, self.top.features))
        above = network(
            "top_decoder", self.top_decoder, quantizer("top", self.top, z), (*self.grid, self.width)
        )
        z = network(
            "join", self.join, jnp.concatenate([h, above], axis=-1), (*self.grid, self.bottom.features)
        )
        both = jnp.concatenate([quantizer("bottom", self.bottom, z), above], axis=-1)
        network("decoder", self.decoder, both, self.likelihood.outputs(self.shape))
        return {"vqvae": params}, {**extra, **likelihoods.init_extra(self.likelihood)}

    def players(self) -> Mapping[str, Player]:
        """One player, `vqvae`."""
        return {"vqvae": Player(self.loss)}

    def _apply(self, params: Params, name: str, x: Array, out: tuple[int, ...]) -> Array:
        return getattr(self, name).apply(params["vqvae"][name], x, out=out)

    def _own(self, params: Params, extra: Extra, level: str) -> tuple[PyTree, PyTree]:
        return params["vqvae"].get(level, {}), extra.get(level, {})

    def quantize(
        self, params: Params, extra: Extra, x: Float[Array, "b ..."], key: Key, step: Array | None
    ) -> tuple[dict[str, Quantized], Array]:
        """Encodes, quantizes at both levels and decodes.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            x: data [b, *shape].
            key: typed PRNG key.
            step: training step; None in evaluation.

        Returns:
            ({"top", "bottom"} -> `Quantized`, the likelihood's parameters).
        """
        h = self._apply(params, "encoder", x, (*self.grid, self.width))
        z = self._apply(params, "top_encoder", h, (*self.top_grid, self.top.features))
        top = self.top.quantize(*self._own(params, extra, "top"), z, named(key, "top"), step)
        above = self._apply(params, "top_decoder", top.z, (*self.grid, self.width))
        maps = jnp.concatenate([h, above], axis=-1)
        z = self._apply(params, "join", maps, (*self.grid, self.bottom.features))
        bottom = self.bottom.quantize(*self._own(params, extra, "bottom"), z, named(key, "bottom"), step)
        return {"top": top, "bottom": bottom}, self._draw(params, above, bottom.z)

    def _draw(self, params: Params, above: Array, bottom: Array) -> Array:
        both = jnp.concatenate([bottom, above], axis=-1)
        return self._apply(params, "decoder", both, self.likelihood.outputs(self.shape))

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """-log p(x|z) / D + both costs, nats per dimension; code statistics, by level, are of all combined batches.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            ctx: PRNG key, step, and whether this is training.

        Returns:
            (scalar loss, metrics and new extra).
        """
        x, step = batch["x"], ctx.step if ctx.train else None
        found, out = self.quantize(params, extra, x, named(ctx.key, "quantize"), step)
        likelihood, fitted = likelihoods.fit_scale(self.likelihood, extra, out, x, ctx.train)
        reconstruction = -jnp.mean(likelihood.log_prob(out, x)) / math.prod(self.shape)
        drawn = likelihood.sample(out, named(ctx.key, "likelihood"))
        metrics: dict[str, Any] = {"mse": jnp.mean((drawn - x) ** 2)}
        for level in LEVELS:
            codes = found[level].codes
            metrics[f"codes_{level}"] = Mean(usage(codes, self.values), float(codes.size), REPORTS[level])
        carried = {level: found[level].carried for level in LEVELS if level in extra}
        cost = found["top"].cost + found["bottom"].cost
        return reconstruction + cost, Aux(metrics, {**carried, **fitted})

    def _flat(self, found: dict[str, Quantized]) -> Int[Array, "b n"]:
        rows = [found[level].codes.reshape(len(found[level].codes), -1) for level in LEVELS]
        return jnp.concatenate(rows, axis=1)

    @property
    def levels(self) -> int:
        """Those of the likelihood, see `core.objective.HasLevels`."""
        return levels_of(self.likelihood)

    def encode(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Int[Array, "b n"]:
        """The codes, top first.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            key: typed PRNG key.

        Returns:
            int32 [b, n].
        """
        return self._flat(self.quantize(params, extra, batch["x"], key, None)[0])

    def decode(
        self, params: Params, extra: Extra, z: Int[Array, "b n"], key: Key, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Samples from p(x | codes): its mean, unless the likelihood is `noisy`.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            z: codes int32 [b, n], top first.
            key: typed PRNG key.
            cond: unused: the model is unconditional.

        Returns:
            [b, *shape].
        """
        top, bottom = z[:, : self._counts[0]], z[:, self._counts[0] :]
        top = top.reshape(-1, *self.top_grid, self.top.stack)
        bottom = bottom.reshape(-1, *self.grid, self.bottom.stack)
        e = self.top.lookup(*self._own(params, extra, "top"), top)
        above = self._apply(params, "top_decoder", e, (*self.grid, self.width))
        out = self._draw(params, above, self.bottom.lookup(*self._own(params, extra, "bottom"), bottom))
        return likelihoods.fitted(self.likelihood, extra).sample(out, named(key, "likelihood"))

    def log_decode(
        self, params: Params, extra: Extra, batch: Batch, key: Key
    ) -> tuple[Int[Array, "b n"], Float[Array, " b"]]:
        """Encodes, with the log-likelihood of the data given the codes.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            key: typed PRNG key.

        Returns:
            (codes int32 [b, n], log p(x | codes) in nats [b]).
        """
        found, out = self.quantize(params, extra, batch["x"], key, None)
        return self._flat(found), likelihoods.fitted(self.likelihood, extra).log_prob(out, batch["x"])
