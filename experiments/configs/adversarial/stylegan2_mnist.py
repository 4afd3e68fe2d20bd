"""Class-conditional StyleGAN2 on MNIST through TFDS.

Variants: DATA[-small], where DATA is mnist (the default) or fashion_mnist; small is for a CPU, the other for a GPU and
not yet run in full. If TFDS has not prepared the data set yet, see the README; a folder with the original files is set
by --config.data.source.manual_dir=DIR.
"""

from genjax.adversarial.conditioning import Projection
from genjax.adversarial.penalties import R1, Lazy
from genjax.conditioning.labels import Labels
from genjax.core.errors import UserError
from genjax.data import TFDS, Data, Scale
from genjax.networks import StyleDiscriminator, StyleMapping, StyleSynthesis
from genjax.objectives.adversarial.gan import GAN
from genjax.objectives.adversarial.stylegan import StyleGAN
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import Adam


def get_experiment(variant: str = "mnist") -> Experiment:
    """Images of 28 x 28 pixels from a constant of 7 x 7."""
    name, _, size = variant.partition("-")
    if size not in ("", "small"):
        raise UserError(f"stylegan2_mnist has no '-{size}': leave it out, or use '-small'")
    data = Data(TFDS(name), (Scale(0.0, 255.0),))
    gan = GAN(
        generator=StyleSynthesis(channels=(64, 32, 16) if size else (128, 64, 32)),
        discriminator=StyleDiscriminator(channels=(16, 32, 64) if size else (32, 64, 128)),
        shape=data.shape,
        latent=64 if size else 128,
        condition=Labels(data.classes),
        penalties=(Lazy(R1(1.0), every=8),),
        conditioning=Projection(),
    )
    return Experiment(
        objective=StyleGAN(gan=gan, mapping=StyleMapping(width=64, depth=3) if size else StyleMapping()),
        data=data,
        optimizer=Adam(learning_rate=1e-2 if size else 2e-3, b1=0.0, b2=0.99),
        steps=3000 if size else 20_000,
        batch_size=32 if size else 64,
        ema=0.998 if size else 0.999,
        checkpoint_every=1000,
        sample_every=1000,
        evaluation=Evaluation(num=2000),
    )
