"""CycleGAN between handwritten digits and the outlines of other digits; about ten minutes on 2 cores."""

from genjax.data import Data, DigitOutlines, Scale
from genjax.networks import PatchGAN, ResNetGenerator
from genjax.objectives.adversarial.cyclegan import CycleGAN
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import Adam


def get_experiment() -> Experiment:
    """Four players on images of 16 x 16 pixels.

    No identity loss, since an outline is unlike its digit, and a smaller cycle weight than the paper: with the paper's
    10 and 5 the generators only shade the outline, which the reverse generator can also undo.
    """
    data = Data(DigitOutlines(paired=False), (Scale(0.0, 16.0),))
    return Experiment(
        objective=CycleGAN(
            generator=ResNetGenerator(channels=(16, 32), depth=3),
            discriminator=PatchGAN(channels=(32, 64)),
            shape=data.shape,
            cycle=3.0,
            identity=0.0,
        ),
        data=data,
        optimizer=Adam(learning_rate=5e-4, b1=0.5),
        steps=1500,
        batch_size=16,
        checkpoint_every=500,
        sample_every=500,
        evaluation=Evaluation(num=360, pictured=40),
    )
