"""Published numbers that a shipped config can be held against: the same data, the same quantity, and who reports it.

Only what is measured alike stands here. No Fréchet ratio does: its features are of classifiers trained here.
"""

from genjax.results import Published

BITS = "likelihood.bits_per_dim"
BURDA = "Burda et al. 2016, arXiv:1509.00519, table 1"
GRATHWOHL = "Grathwohl et al. 2019, arXiv:1810.01367, table 2"
PUBLISHED = (
    Published(
        "ar_shakespeare",
        ("*",),
        "likelihood.nats_per_token",
        1.88,
        "nats a character",
        "nanoGPT, README: the setting for CPUs",
        "2000 steps of 12 x 64",
    ),
    Published(
        "vae_mnist",
        ("", "elbo"),
        "likelihood.nats",
        -86.76,
        "nats",
        f"VAE, one layer, k = 1, {BURDA}",
        "3280 epochs",
        (("objective.samples", 5000),),
    ),
    Published(
        "vae_mnist",
        ("iwae", "dreg"),
        "likelihood.nats",
        -84.78,
        "nats",
        f"IWAE, one layer, k = 50, {BURDA}",
        "3280 epochs",
        (("objective.samples", 5000),),
    ),
    Published("flow_mnist", ("", "mnist"), BITS, 1.05, "bits/dim", f"Glow, {GRATHWOHL}", "to the end"),
    Published("diffusion_mnist", ("", "mnist"), BITS, 0.99, "bits/dim", f"FFJORD, {GRATHWOHL}", "to the end"),
)
