"""Which family for small images? Nine on scikit-learn's handwritten digits (8 x 8, 17 grey levels), by class.

./launch/local.sh suite --suite=digits --seconds=120 --seeds=0,1

The shipped configs of the families as they are, but for the length of the run.
"""

from genjax.api.suite import Member, Suite

SAMPLER = "objective.sampler.steps"
QUICK = (("evaluation.num", "100"),)  # of a first stage, whose own samples are not compared


def get_suite() -> Suite:
    """One trained diffusion model stands in three rows, by the steps of its sampler."""
    return Suite(
        members=(
            Member("vae", "vae_digits"),
            Member("vq_prior", "vq_prior_digits:{coder}", coder=Member("vq", "vqvae_digits", QUICK)),
            Member("gan", "gan_digits"),
            Member("wgan_gp", "gan_digits:wgan_gp"),
            Member("flow", "flow_digits"),
            Member("pixelcnn", "ar_digits"),
            Member(
                "diffusion", "diffusion_digits", views=tuple(((SAMPLER, n),) for n in ("10", "50", "250"))
            ),
            Member("consistency", "consistency_digits"),
            Member("mean_flow", "mean_flow_digits"),
        ),
        overrides=(("evaluation.num", "1000"),),
    )
