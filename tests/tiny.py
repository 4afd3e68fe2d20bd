"""Networks with few parameters, for properties that hold for any network."""

import math

import flax.linen as nn
import jax.numpy as jnp


class Affine(nn.Module):
    """An affine map of x, the same at all times."""

    @nn.compact
    def __call__(self, x, t=None, cond=None, *, out, train=False):
        return nn.Dense(out[-1])(x)


class Tiny(nn.Module):
    """One hidden tanh layer of x and t."""

    @nn.compact
    def __call__(self, x, t=None, cond=None, *, out, train=False):
        return nn.Dense(out[-1])(jnp.tanh(nn.Dense(12)(jnp.concatenate([x, t[:, None]], axis=1))))


class Joint(nn.Module):
    """One hidden tanh layer of x, t and cond, in the dtype of x."""

    width: int = 8

    @nn.compact
    def __call__(self, x, t=None, cond=None, *, out, train=False):
        seen = [
            x.reshape(len(x), -1),
            *([] if t is None else [t[:, None]]),
            *([] if cond is None else [cond]),
        ]
        shape = (out,) if isinstance(out, int) else out
        hidden = jnp.tanh(nn.Dense(self.width)(jnp.concatenate(seen, axis=1)))
        return nn.Dense(math.prod(shape))(hidden).reshape(len(x), *shape)
