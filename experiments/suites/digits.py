"""Nine class-conditional model families on scikit-learn's handwritten digits (8 x 8, 17 grey levels).

./launch/local.sh suite --suite=digits --seconds=120 --seeds=0,1

The members are shipped configs; only the number of steps differs.
"""

from genjax.api.suite import Member, Suite

SAMPLER = "objective.sampler.steps"
QUICK = (("evaluation.num", "100"),)  # for first stages, whose own samples are not compared


def get_suite() -> Suite:
    """The members; the diffusion model has three rows with different numbers of sampler steps."""
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
