"""Which family for small pictures? Eight on Fashion-MNIST (28 x 28, 256 grey levels), by class.

TFDS_DATA_DIR=DIR ./launch/local.sh suite --suite=fashion_mnist --seconds=180 --num=500

Where TFDS has not prepared the data set yet, see the README. U-Nets are of 16 channels, for their
steps on a CPU. No numbers have been measured yet.
"""

from genjax.suite import Member, Suite

SAMPLER = "objective.sampler.steps"
QUICK = (("evaluation.num", "100"),)  # of a first stage, whose own samples are not compared
SMALL = ("objective.net.channels", "16")
PRIOR = (("objective.weights.workdir", "{coder}"), ("data.source.weights.workdir", "{coder}"))


def get_suite() -> Suite:
    """One trained diffusion model stands in three rows, by the steps of its sampler."""
    coder = Member("vq", "vqvae_mnist:fashion_mnist", QUICK)
    return Suite(
        members=(
            Member("vae", "conv_vae_mnist:fashion_mnist"),
            Member("vq_prior", "vqvae_mnist:prior-fashion_mnist", PRIOR, coder),
            Member("gan", "gan_mnist:fashion_mnist"),
            Member("wgan_gp", "gan_mnist:fashion_mnist-wgan_gp"),
            Member("flow", "flow_mnist:fashion_mnist"),
            Member("pixelcnn", "pixelcnn_mnist:fashion_mnist"),
            Member(
                "diffusion",
                "diffusion_mnist:fashion_mnist",
                (
                    SMALL,
                    ("objective.likelihood.steps", "0"),
                ),  # its density would take longer than its training
                views=tuple(((SAMPLER, n),) for n in ("10", "50", "250")),
            ),
            Member("consistency", "consistency_mnist:fashion_mnist", (SMALL,)),
        ),
        overrides=(("evaluation.num", "500"),),
    )
