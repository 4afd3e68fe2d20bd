"""Nine class-conditional models on Fashion-MNIST (28 x 28, 256 grey levels).

TFDS_DATA_DIR=DIR ./launch/local.sh suite --suite=fashion_mnist --seconds=300 --num=300

The README explains how to prepare the data set with TFDS. The members are shipped configs; those whose step takes more
than half a second on a CPU core are made smaller: batches of 32, half the channels.
"""

from genjax.api.suite import Member, Suite

SAMPLER = "objective.sampler.steps"
FEW = ("batch_size", "32")
UNET = (FEW, ("objective.net.channels", "16"))
QUICK = (("evaluation.num", "100"), FEW)  # for first stages, whose own samples are not compared
NARROW = (FEW, ("objective.encoder.channels", "16,32"), ("objective.decoder.channels", "32,16"))
BETA = (("objective.likelihood", "OptimalGaussian"), ("objective.bound.penalty.beta", "10"))
PRIOR = (("objective.weights.workdir", "{coder}"), ("data.source.weights.workdir", "{coder}"))


def get_suite() -> Suite:
    """The members; the diffusion model has three rows with different numbers of sampler steps.

    There are two VAEs: one trained by its ELBO, one for sample quality (sigma-VAE with beta = 10).
    """
    coder = Member("vq", "vqvae_mnist:fashion_mnist", QUICK)
    return Suite(
        members=(
            Member("vae", "conv_vae_mnist:fashion_mnist", NARROW),
            Member("beta_vae", "conv_vae_mnist:fashion_mnist", (*NARROW, *BETA)),
            Member("vq_prior", "vqvae_mnist:prior-fashion_mnist", PRIOR, coder),
            Member("gan", "gan_mnist:fashion_mnist-dcgan"),
            Member("wgan_gp", "gan_mnist:fashion_mnist-wgan_gp"),
            Member("flow", "flow_mnist:fashion_mnist", (FEW,)),
            Member("pixelcnn", "pixelcnn_mnist:fashion_mnist"),
            Member(
                "diffusion",
                "diffusion_mnist:fashion_mnist",
                (
                    *UNET,
                    ("objective.likelihood.steps", "0"),
                ),  # no likelihood: evaluating it takes longer than training
                views=tuple(((SAMPLER, n),) for n in ("10", "50", "250")),
            ),
            Member("consistency", "consistency_mnist:fashion_mnist", UNET),
        ),
        overrides=(("evaluation.num", "300"),),
    )
