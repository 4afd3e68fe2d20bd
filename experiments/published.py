"""Published numbers to compare shipped configs with: the same data, the same quantity, and the source.

Only numbers on the same test examples are listed; Fréchet ratios are not, since their features come from classifiers
trained here. Flows and diffusion models of this repository are class-conditional, the published ones are not: see their
"training".
"""

from genjax.reports.results import Published

BITS = "likelihood.bits_per_dim"
TEST = ("likelihood.examples", 10_000.0)  # the whole test split
IMPORTANCE = (("objective.samples", 5000.0), TEST)
LABELS = "full training; without labels"
NANOGPT_TEXT = (("likelihood.examples", 1715.0),)  # windows of 65 characters in Tiny Shakespeare's last tenth
BURDA = "Burda et al. 2016, arXiv:1509.00519, table 1"
GRATHWOHL = "Grathwohl et al. 2019, arXiv:1810.01367, table 2"
NALISNICK = "Nalisnick et al. 2019, arXiv:1810.09136, figure 1"
PUBLISHED = (
    Published(
        config="ar_shakespeare",
        variants=("*",),
        number="likelihood.nats_per_token",
        value=1.88,
        unit="nats/character",
        source="nanoGPT, README: the setting for CPUs",
        training="2000 steps of 12 x 64",
        settings=NANOGPT_TEXT,
    ),
    Published(
        config="vae_mnist",
        variants=("", "elbo"),
        number="likelihood.nats",
        value=-86.76,
        unit="nats",
        source=f"VAE, one layer, k = 1, {BURDA}",
        training="3280 epochs",
        settings=IMPORTANCE,
    ),
    Published(
        config="vae_mnist",
        variants=("iwae", "dreg"),
        number="likelihood.nats",
        value=-84.78,
        unit="nats",
        source=f"IWAE, one layer, k = 50, {BURDA}",
        training="3280 epochs",
        settings=IMPORTANCE,
    ),
    Published(
        config="flow_mnist",
        variants=("", "mnist"),
        number=BITS,
        value=1.05,
        unit="bits/dim",
        source=f"Glow, {GRATHWOHL}",
        training=LABELS,
        settings=(TEST,),
    ),
    Published(
        config="flow_mnist",
        variants=("fashion_mnist",),
        number=BITS,
        value=2.958,
        unit="bits/dim",
        source=f"Glow, {NALISNICK}",
        training=LABELS,
        settings=(TEST,),
    ),
    Published(
        config="diffusion_mnist",
        variants=("", "mnist"),
        number=BITS,
        value=0.99,
        unit="bits/dim",
        source=f"FFJORD, which is trained by maximum likelihood, {GRATHWOHL}",
        training=LABELS,
        settings=(TEST,),
    ),
)
