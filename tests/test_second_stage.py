"""The second stage of a latent model takes its autoencoder and its data from the first stage's work directory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.errors import UserError
from genjax.training import experiment, loop
from genjax.training.checkpoint import Checkpoints
from genjax.training.encoded_data import Encoded
from genjax.training.pretrained import Pretrained

WORDS = [("objective.autoencoder.grid", "2,2"), ("objective.autoencoder.quantizer.values", "5")]
WORDS += [
    ("objective.autoencoder.encoder.channels", "8,8"),
    ("objective.autoencoder.decoder.channels", "8,8"),
]


def stages(workdir):
    """A VQ-GAN with another grid and codebook than the shipped first stage, described in `workdir`; its prior."""
    first = experiment.load("vqgan_digits", [*WORDS, ("batch_size", "8")])
    workdir.mkdir()
    experiment.save(first, "vqgan_digits", workdir)
    return first, experiment.load(f"vq_prior_digits:{workdir}", [("objective.model.net.width", "16")])


def test_the_prior_of_codes_is_of_the_autoencoder_in_the_work_directory(tmp_path):
    first, second = stages(tmp_path / "gan")
    latent = second.objective
    assert latent.autoencoder == first.objective
    assert (latent.model.shape, latent.model.values) == ((2, 2, 1), 5)
    assert second.data.source == Encoded(first.data.source, Pretrained(str(tmp_path / "gan")))
    batch = {"x": jax.ShapeDtypeStruct((4, 8, 8, 1), "float32"), "label": jax.ShapeDtypeStruct((4,), "int32")}
    params, extra = jax.eval_shape(latent.init, jax.random.key(0), batch)
    assert jax.eval_shape(latent.encode, params, extra, batch, jax.random.key(1)).shape == (4, 2, 2, 1)


@pytest.mark.slow
def test_the_prior_reads_the_codes_of_the_trained_autoencoder(tmp_path):
    first, second = stages(tmp_path / "gan")
    with Checkpoints(tmp_path / "gan" / experiment.CHECKPOINTS) as checkpoints:
        checkpoints.save(1, loop.prepare(first).make_state())
        checkpoints.wait()
    batch = {"x": jnp.asarray(first.data.source.load("train")[np.arange(4)]["x"], jnp.float32) / 8 - 1}
    batch["label"] = jnp.arange(4, dtype=jnp.int32)
    params, extra = second.objective.init(jax.random.key(0), batch)
    held = extra["autoencoder"]
    codes = first.objective.encode(held["params"], held["extra"], batch, jax.random.key(1))
    np.testing.assert_array_equal(second.objective.encode(params, extra, batch, jax.random.key(1)), codes)


@pytest.mark.parametrize(
    ("second", "first"),
    [
        ("vq_prior_digits", "vqvae_digits"),
        ("latent_diffusion_digits", "kl_digits"),
        ("vqvae2_digits:prior", "vqvae2_digits"),
    ],
)
def test_without_the_work_directory_it_is_of_the_shipped_first_stage(second, first, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert experiment.load(second).objective.autoencoder == experiment.load(first).objective


def test_real_latents_and_codes_are_not_confused(tmp_path):
    for name in ("kl_digits", "vqvae_digits", "gan_digits"):
        (tmp_path / name).mkdir()
        experiment.save(experiment.load(name), name, tmp_path / name)
    for spec, words in (
        (f"vq_prior_digits:{tmp_path}/kl_digits", "VAE, which has no codes"),
        (f"vqvae2_digits:{tmp_path}/kl_digits", "VAE, which has no codes"),
        (f"latent_diffusion_digits:{tmp_path}/vqvae_digits", "VQVAE, which has no real latents"),
        (f"vq_prior_digits:{tmp_path}/gan_digits", "GAN, which has no codes"),
    ):
        with pytest.raises(UserError, match=words):
            experiment.load(spec)
