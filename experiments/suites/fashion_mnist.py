"""Which family for small pictures? Nine on Fashion-MNIST (28 x 28, 256 grey levels), by class.

TFDS_DATA_DIR=DIR ./launch/local.sh suite --suite=fashion_mnist --seconds=300 --num=300

Where TFDS has not prepared the data set yet, see the README. The shipped configs, made smaller for CPUs where a step of
theirs takes a core more than half a second: batches of 32, half the channels.
"""

from genjax.api.suite import Member, Suite

SAMPLER = "objective.sampler.steps"
FEW = ("batch_size", "32")
UNET = (FEW, ("objective.net.channels", "16"))
QUICK = (("evaluation.num", "100"), FEW)  # of a first stage, whose own samples are not compared
NARROW = (FEW, ("objective.encoder.channels", "16,32"), ("objective.decoder.channels", "32,16"))
BETA = (("objective.likelihood", "OptimalGaussian"), ("objective.bound.penalty.beta", "10"))
PRIOR = (("objective.weights.workdir", "{coder}"), ("data.source.weights.workdir", "{coder}"))


def get_suite() -> Suite:
    """One trained diffusion model stands in three rows, by the steps of its sampler.

    Two VAEs: one trained by its bound, one for its samples (sigma-VAE, ten times the KL).
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
                ),  # its density would take longer than its training
                views=tuple(((SAMPLER, n),) for n in ("10", "50", "250")),
            ),
            Member("consistency", "consistency_mnist:fashion_mnist", UNET),
        ),
        overrides=(("evaluation.num", "300"),),
    )
