"""FLOPs against hand counts."""

import jax
import jax.numpy as jnp

from genjax.evaluation.flops import count_flops, has_while_loop


def conv(x, w):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_products_and_convolutions():
    assert count_flops(lambda a, b: a @ b, jnp.zeros((3, 4)), jnp.zeros((4, 5))) == 2 * 3 * 4 * 5
    batched = lambda a, b: jnp.einsum("bij,bjk->bik", a, b)
    assert count_flops(batched, jnp.zeros((7, 3, 4)), jnp.zeros((7, 4, 5))) == 7 * 2 * 3 * 4 * 5
    x, w = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 16))
    forward = 2 * 2 * 64 * 16 * 27
    assert count_flops(conv, x, w) == forward
    assert count_flops(jax.grad(lambda w, x: conv(x, w).sum()), w, x) == 2 * forward
    assert count_flops(jax.grad(lambda x, w: conv(x, w).sum(), (0, 1)), x, w) == 3 * forward


def test_scans_count_their_length_and_cond_its_most_expensive_branch():
    square = jnp.zeros((3, 3))
    once = 2 * 27
    looped = lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, length=7)[0]
    assert count_flops(looped, square) == 7 * once
    assert count_flops(jax.vmap(looped), jnp.zeros((2, 3, 3))) == 2 * 7 * once
    branch = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)
    assert count_flops(branch, square) == 2 * once
    assert count_flops(jax.jit(jax.checkpoint(lambda x: x @ x)), square) == once


def test_loops_without_a_known_end_count_the_turns_that_are_given():
    square, once = jnp.zeros((3, 3)), 2 * 27
    until = lambda x: jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c @ c, x) @ x
    assert count_flops(until, square) == 2 * once
    assert count_flops(until, square, iterations=5) == 6 * once
    assert has_while_loop(until, square)
    assert not has_while_loop(lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, length=7)[0], square)


def test_of_a_network_by_hand():
    """A perceptron 5 - 7 - 3: forward 2 b (5 7 + 7 3), back to the weights as much, back to the inner layer 2 b 7 3."""
    from genjax.networks import FeedForward

    net, x = FeedForward((7,)), jnp.zeros((4, 5))
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), x, out=3))
    loss = lambda params: net.apply(params, x, out=3).sum()
    forward = 2 * 4 * (5 * 7 + 7 * 3)
    assert count_flops(lambda params: net.apply(params, x, out=3), params) == forward
    assert count_flops(jax.grad(loss), params) == 2 * forward + 2 * 4 * 7 * 3
