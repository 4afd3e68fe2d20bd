"""Floating-point operations of matrix products and convolutions, counted in the jaxpr.

    dot_general:  2 x (elements of the result) x (length of the contracted axes)
    convolution:  2 x (elements of the result) x (kernel elements per result element)

A `scan` counts its body times its length, a `cond` its most expensive branch. Element-wise operations are not counted,
as in the usual model-FLOPs convention (Chowdhery et al. 2022, arXiv:2204.02311, app. B). Unlike a compiler's cost
analysis the count is independent of the platform and includes loop lengths; a `while_loop` counts once, unless the
number of its iterations is given.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


def count_flops(function: Callable[..., Any], *args: Any, iterations: int = 1) -> int:
    """Counts the operations of one call.

    Args:
        function: traceable by JAX.
        *args: arrays or `jax.ShapeDtypeStruct`s.
        iterations: number of iterations of each `while_loop`.

    Returns:
        Multiplications plus additions of all products and convolutions, over all devices.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr, iterations)


def has_while_loop(function: Callable[..., Any], *args: Any) -> bool:
    """Whether a call has a `while_loop` with products in it, so that its FLOPs are unknown before it runs."""
    return count_flops(function, *args, iterations=2) != count_flops(function, *args)


def _of_jaxpr(jaxpr: Any, iterations: int) -> int:
    return sum(_of_equation(equation, iterations) for equation in jaxpr.eqns)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs inside an equation: of jit, remat, custom derivatives, shard_map."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "eqns"):
                yield item
            elif hasattr(getattr(item, "jaxpr", None), "eqns"):
                yield item.jaxpr


def _of_equation(equation: Any, iterations: int) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        contracted = params["dimension_numbers"][0][0]
        left = equation.invars[0].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * equation.outvars[0].aval.size * math.prod(kernel) // outputs // params["batch_group_count"]
    inner = [_of_jaxpr(jaxpr, iterations) for jaxpr in _inner(params)]
    if name == "cond":
        return max(inner, default=0)
    return sum(inner) * {"scan": params.get("length", 1), "while": iterations}.get(name, 1)
