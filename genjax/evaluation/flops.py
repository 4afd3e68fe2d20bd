"""Floating-point operations of matrix products and convolutions, counted in the traced program.

    dot_general:  2 x (elements of the result) x (length of the contracted axes)
    convolution:  2 x (elements of the result) x (elements of the kernel that meet in one of them)

A `scan` counts its body times its length, a `cond` its dearest branch. Element-wise work is left out, as in the
usual model-FLOPs convention (Chowdhery et al. 2022, arXiv:2204.02311, app. B). Unlike a compiler's cost analysis
the count does not depend on the platform and knows how often a loop runs; a `while_loop` counts once, unless
the number of its turns is given.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


def count_flops(function: Callable[..., Any], *args: Any, turns: int = 1) -> int:
    """Counts the operations of one call.

    Args:
        function: traceable by JAX.
        *args: arrays or `jax.ShapeDtypeStruct`s.
        turns: how often each `while_loop` runs.

    Returns:
        Multiplications plus additions of all products and convolutions, over all devices together.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr, turns)


def loops(function: Callable[..., Any], *args: Any) -> bool:
    """Whether a call has a `while_loop` with products in it, whose turns only running it would tell."""
    return count_flops(function, *args, turns=2) != count_flops(function, *args)


def _of_jaxpr(jaxpr: Any, turns: int) -> int:
    return sum(_of_equation(equation, turns) for equation in jaxpr.eqns)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """The programs inside an equation: of jit, remat, custom derivatives, shard_map."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "eqns"):
                yield item
            elif hasattr(getattr(item, "jaxpr", None), "eqns"):
                yield item.jaxpr


def _of_equation(equation: Any, turns: int) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        contracted = params["dimension_numbers"][0][0]
        left = equation.invars[0].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * equation.outvars[0].aval.size * math.prod(kernel) // outputs // params["batch_group_count"]
    inner = [_of_jaxpr(jaxpr, turns) for jaxpr in _inner(params)]
    if name == "cond":
        return max(inner, default=0)
    return sum(inner) * {"scan": params.get("length", 1), "while": turns}.get(name, 1)
