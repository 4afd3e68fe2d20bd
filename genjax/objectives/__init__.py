"""Objectives: one family of generative models, one file.

Imports: floors 1 to 3. Start with `diffusion/diffusion.py`; the contract is `core/objective.py`.
"""

from typing import TYPE_CHECKING

from genjax.core.lazy import attach

if TYPE_CHECKING:
    from genjax.objectives.adversarial.aae import AAE
    from genjax.objectives.adversarial.bigan import BiGAN
    from genjax.objectives.adversarial.cyclegan import CycleGAN
    from genjax.objectives.adversarial.gan import GAN
    from genjax.objectives.adversarial.pix2pix import Pix2Pix
    from genjax.objectives.adversarial.stylegan import StyleGAN
    from genjax.objectives.autoregressive import Autoregressive
    from genjax.objectives.diffusion.consistency import Consistency
    from genjax.objectives.diffusion.diffusion import Diffusion
    from genjax.objectives.diffusion.distillation import Teacher
    from genjax.objectives.diffusion.improved_ddpm import ImprovedDDPM
    from genjax.objectives.diffusion.interpolant import Interpolant
    from genjax.objectives.diffusion.mean_flow import MeanFlow
    from genjax.objectives.diffusion.progressive import Progressive
    from genjax.objectives.diffusion.reflow import Reflow
    from genjax.objectives.diffusion.score_matching import SlicedScoreMatching
    from genjax.objectives.diffusion.token_diffusion import TokenDiffusion
    from genjax.objectives.diffusion.vdm import VDM
    from genjax.objectives.flow import Flow
    from genjax.objectives.huggingface import HuggingFace
    from genjax.objectives.latent.ladder import LadderVAE
    from genjax.objectives.latent.latent import Latent
    from genjax.objectives.latent.vae import VAE
    from genjax.objectives.latent.vqgan import VQGAN
    from genjax.objectives.latent.vqvae import VQVAE
    from genjax.objectives.latent.vqvae2 import VQVAE2
    from genjax.objectives.lora import LoRA

__all__, __getattr__, __dir__ = attach(__name__, __file__)
