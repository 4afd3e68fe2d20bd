"""Networks of a few parameters, for laws that hold for any network."""

import flax.linen as nn
import jax.numpy as jnp


class Affine(nn.Module):
    """An affine map of x, the same at all times."""

    @nn.compact
    def __call__(self, x, t=None, cond=None, *, out, train=False):
        return nn.Dense(out[-1])(x)


class Tiny(nn.Module):
    """One hidden layer of tanh that sees x and t."""

    @nn.compact
    def __call__(self, x, t=None, cond=None, *, out, train=False):
        return nn.Dense(out[-1])(jnp.tanh(nn.Dense(12)(jnp.concatenate([x, t[:, None]], axis=1))))
