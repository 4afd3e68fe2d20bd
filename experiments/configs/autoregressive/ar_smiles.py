"""A transformer over the characters of molecules, a SMILES a line; about seven minutes on one core.

ar_smiles          25 common biomolecules, for a quick test
ar_smiles:FILE     the molecules of a .smi or text file, of up to 95 characters, without titles, comments and header
"""

from genjax.data import Data, Smiles
from genjax.networks.transformers.token_transformer import gpt2
from genjax.objectives.autoregressive import Autoregressive
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment(variant: str = "") -> Experiment:
    """`molecules` of evaluation.json needs RDKit (requirements-peers.txt), otherwise only brackets are checked."""
    data = Data(Smiles(variant, length=96, packed=True))
    return Experiment(
        objective=Autoregressive(
            net=gpt2(depth=4, width=128, heads=4, position="rotary", extra=1),
            shape=data.shape,
            values=data.levels,
            stop=(0,),
        ),
        data=data,
        optimizer=AdamW(learning_rate=3e-3, b2=0.99, weight_decay=0.1, schedule=Cosine(100, 0.1), clip=1.0),
        steps=2000,
        batch_size=16,
        ema=0.99,
        checkpoint_every=500,
        sample_every=500,
        evaluation=Evaluation(num=1000, batch_size=250, pictured=40),
    )
