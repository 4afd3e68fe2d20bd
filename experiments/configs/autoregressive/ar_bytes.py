"""A transformer over the bytes of Python's standard library, 128 at a time; four minutes on 2 cores.

ar_bytes        four blocks of width 128
ar_bytes:moe    with four experts of the same size per block, one active per byte
"""

from genjax.core.errors import UserError
from genjax.data import Data, StdlibBytes
from genjax.networks.transformers.experts import Mixture
from genjax.networks.transformers.token_transformer import gpt2
from genjax.objectives.autoregressive import Autoregressive
from genjax.samplers.decoding import Decoding
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import AdamW, Cosine


def get_experiment(variant: str = "dense") -> Experiment:
    """Bits per dimension are bits per byte, of windows without preceding context."""
    if variant not in ("dense", "moe"):
        raise UserError(f"ar_bytes has the variants dense and moe, not '{variant}'")
    experts = Mixture(experts=4, active=1) if variant == "moe" else None
    data = Data(StdlibBytes(length=128))
    return Experiment(
        objective=Autoregressive(
            net=gpt2(depth=4, width=128, heads=4, position="rotary", extra=1, experts=experts),
            shape=data.shape,
            values=data.levels,
            decoding=Decoding(temperature=0.8, top_p=0.95),
        ),
        data=data,
        optimizer=AdamW(learning_rate=2e-3, b2=0.99, weight_decay=0.1, schedule=Cosine(100, 0.1), clip=1.0),
        steps=2000,
        batch_size=16,
        ema=0.99,
        checkpoint_every=500,
        sample_every=500,
        evaluation=Evaluation(num=128, batch_size=128, pictured=8),
    )
