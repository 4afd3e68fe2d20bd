"""nanoGPT's setting for CPUs on Tiny Shakespeare's characters: 4 layers, width 128, context 64; 2 minutes on 2 cores.

ar_shakespeare         reads TFDS's tiny_shakespeare (--config.data.source.data_dir=DIR); the test split is the last 5 %
ar_shakespeare:FILE    reads a text file of 65 distinct characters; the test split is the last 10 %, as in nanoGPT
"""

from genjax.data import TFDS, Data, TextFile
from genjax.networks.transformers.token_transformer import gpt2
from genjax.objectives.autoregressive import Autoregressive
from genjax.samplers.decoding import Decoding
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine

CONTEXT, CHARACTERS = 64, 65


def get_experiment(variant: str = "") -> Experiment:
    """Expect `nats_per_token` 1.73; https://github.com/karpathy/nanoGPT publishes 1.88 for these sizes and steps.

    nanoGPT's own form: --config.objective.net.position=learned --config.optimizer.learning_rate=1e-3; expect 1.89.
    """
    source: TFDS | TextFile = TFDS("tiny_shakespeare", unit="char", length=CONTEXT + 1, values=CHARACTERS)
    if variant:
        source = TextFile(variant, unit="char", length=CONTEXT + 1, validation=0.0)
    return Experiment(
        objective=Autoregressive(
            net=gpt2(depth=4, width=128, heads=4, bias=False, position="rotary", unroll=4),
            shape=(CONTEXT + 1,),
            values=CHARACTERS,
            start=False,
            decoding=Decoding(temperature=0.8),
        ),
        data=Data(source),
        optimizer=AdamW(learning_rate=2e-3, b2=0.99, weight_decay=0.1, schedule=Cosine(100, 0.1), clip=1.0),
        steps=2000,
        batch_size=12,
        ema=0.99,
        checkpoint_every=1000,
        evaluation=Evaluation(num=200, batch_size=128, pictured=8),
    )
