"""The twins of PyTorch have as many parameters as the networks that they are compared with, and their losses move."""

import jax
import numpy as np
import pytest
import torch
from twins import CASES, flow, pixelcnn, unet, vae

from genjax.evaluate import count_params
from genjax.loop import prepare

OWN = [name for name in CASES if not name.startswith("gpt")]  # nanoGPT is not ours


@pytest.mark.peers
@pytest.mark.parametrize("name", [name for name in OWN if name not in ("dit-b2", "unet-cifar", "maf")])
def test_twins_have_the_same_number_of_parameters(name):
    case = CASES[name]()
    shapes = prepare(case.experiment).template()
    assert count_params(shapes.params) - case.less == case.twin("").parameters
