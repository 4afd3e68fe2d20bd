"""A module of flax.nnx is a network, too."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genjax.core.objective import Network
from genjax.networks import FromNNX

KEY = jax.random.key(0)


class Perceptron(nnx.Module):
    def __init__(self, inputs, features, *, rngs):
        self.layers = nnx.List([nnx.Linear(inputs, 8, rngs=rngs), nnx.Linear(8, features, rngs=rngs)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, train=False):
        return self.layers[1](self.dropout(jnp.tanh(self.layers[0](x)), deterministic=not train))


def test_an_nnx_module_becomes_a_network():
    net = FromNNX(Perceptron, (("inputs", 3),), out="features")
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3), np.float32))
    params = net.init(KEY, x, out=2)
    assert isinstance(net, Network)
    assert hash(net) == hash(FromNNX(Perceptron, (("inputs", 3),), out="features"))
    assert set(params["layers"]) == {"0", "1"}
    first, second = params["layers"]["0"], params["layers"]["1"]

    def by_hand(params):
        first, second = params["layers"]["0"], params["layers"]["1"]
        hidden = jnp.tanh(x @ first["kernel"] + first["bias"][None])
        return hidden @ second["kernel"] + second["bias"][None]

    assert first["kernel"].shape == (3, 8)
    assert second["kernel"].shape == (8, 2)
    apply = jax.jit(lambda params: net.apply(params, x, None, None, out=2))
    np.testing.assert_allclose(apply(params), by_hand(params), atol=1e-6)
    gradients = [jax.grad(lambda params, f=f: jnp.sin(f(params)).sum())(params) for f in (apply, by_hand)]
    for a, e in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a, e, atol=1e-5)
    drop = jax.jit(lambda key: net.apply(params, x, out=2, train=True, rngs={"dropout": key}))
    np.testing.assert_array_equal(drop(KEY), drop(KEY))
    assert jnp.abs(drop(KEY) - drop(jax.random.key(1))).max() > 1e-3
