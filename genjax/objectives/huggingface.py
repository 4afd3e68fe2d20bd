"""The weights of a language model in Hugging Face's layout, as a start of fine-tuning or as the base of an adapter."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from genjax.core.errors import UserError
from genjax.core.objective import Objective
from genjax.core.types import Array, Batch, Extra, Key, Params
from genjax.networks import huggingface
from genjax.networks.transformers.token_transformer import TokenTransformer
from genjax.objectives.autoregressive import Autoregressive
from genjax.training.pretrained import Kinds, load_leaves


@dataclass(frozen=True)
class HuggingFace:
    """Weights in a folder; see `networks.huggingface`.

    They are read once, when a new run makes its state, and are stored in its checkpoints.

    Attributes:
        folder: holds config.json and model.safetensors.
    """

    folder: str

    def load(self, objective: Objective, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """The weights, in place of the parameters of `objective.init`.

        Args:
            objective: autoregressive, with the network that config.json describes.
            key: typed PRNG key, for shapes only.
            batch: arrays or shapes, as the objective's `init` gets them.

        Returns:
            Parameters by player, and extra, as `objective.init(key, batch)`.

        Raises:
            UserError: when the values are computed (not for shapes alone): the folder is damaged, or describes another
                model.
        """
        return load_leaves(self, objective, key, batch)

    def arrays(self, objective: Objective, kinds: Kinds) -> list[Array]:
        """The leaves of the parameters; raises as `load` does."""
        model = huggingface.describe(Path(self.folder))
        if not isinstance(objective, Autoregressive) or not isinstance(objective.net, TokenTransformer):
            other = type(objective).__name__
            raise UserError(f"{self.folder} holds weights of an Autoregressive model, not of {other}")
        names = [field.name for field in dataclasses.fields(model.net) if field.name not in huggingface.FREE]
        for name in names:
            there, here = (vars(net)[name] for net in (model.net, objective.net))
            if there != here:
                raise UserError(
                    f"{self.folder} holds another model: its net.{name} is {there}, expected {here}"
                )
        if objective.values != model.values or objective.start:
            raise UserError(
                f"{self.folder} holds a model of {model.values} tokens that is given the first one: set values to "
                f"{model.values} and start to False"
            )
        _, params, _ = huggingface.read(Path(self.folder))
        return [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
