"""Class-conditional WaveNet on spoken digits at 8 kHz; about ten minutes on 2 cores.

ar_wavenet_digits:FILE.npz    recordings in one file, as `genjax.data.sources.clips` describes it: audio, offsets, label
"""

from genjax.conditioning.labels import Labels
from genjax.data import Clips, Data, MuLaw
from genjax.networks import WaveNet
from genjax.objectives.autoregressive import Autoregressive
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment(variant: str = "spoken_digits.npz") -> Experiment:
    """Bits per dimension are bits per sample of the signal in 256 levels, with the silence after a clip: 3.75 ± 0.09.

    After this short training samples have the envelope and spectrum of speech, but no intelligible words.
    """
    companding = MuLaw()
    data = Data(Clips(variant, length=4096, classes=10), (companding,))
    return Experiment(
        objective=Autoregressive(
            net=WaveNet(width=32, gate=32, skip=64, layers=9, cycles=2),
            shape=data.shape,
            values=companding.levels,
            condition=Labels(data.classes),
        ),
        data=data,
        optimizer=AdamW(learning_rate=3e-3, schedule=Cosine(warmup=50), clip=1.0),
        steps=600,
        batch_size=8,
        ema=0.98,
        log_every=20,
        checkpoint_every=200,
        sample_every=200,
        evaluation=Evaluation(num=64, batch_size=64, pictured=10),
    )
