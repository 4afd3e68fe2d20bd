"""Class-conditional StyleGAN2 on handwritten digits; five minutes on a core.

Weights of equalised layers have variance 1, so that the learning rate is a relative change per step: the paper's 0.002
suits its millions of steps. With 2000 steps at that rate the samples of a class were nearly identical (recall 0.32 of
0.89).
"""

from genjax.adversarial.conditioning import Projection
from genjax.adversarial.penalties import R1, Lazy
from genjax.conditioning.labels import Labels
from genjax.data import Data, Digits, Scale
from genjax.networks import StyleDiscriminator, StyleMapping, StyleSynthesis
from genjax.objectives.adversarial.gan import GAN
from genjax.objectives.adversarial.stylegan import StyleGAN
from genjax.training.experiment import Experiment
from genjax.training.optimizers import Adam


def get_experiment() -> Experiment:
    """Images of 8 x 8 pixels from a constant of 4 x 4."""
    data = Data(Digits(), (Scale(0.0, 16.0),))
    gan = GAN(
        generator=StyleSynthesis(channels=(64, 32)),
        discriminator=StyleDiscriminator(channels=(32, 64), width=64),
        shape=data.shape,
        latent=64,
        condition=Labels(data.classes),
        penalties=(Lazy(R1(1.0), every=4),),
        conditioning=Projection(),
    )
    return Experiment(
        objective=StyleGAN(gan=gan, mapping=StyleMapping(width=64, depth=3)),
        data=data,
        optimizer=Adam(learning_rate=1e-2, b1=0.0, b2=0.99),
        steps=4000,
        batch_size=64,
        ema=0.998,
        checkpoint_every=500,
        sample_every=500,
    )
