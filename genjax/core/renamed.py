"""Names of format 1, the earlier version of work directories, and what they are called now.

A reference is "module:name", as experiment.json writes classes and functions. The fields of a class are listed under
its present reference.
"""


def _moved(package: str, folders: dict[str, str]) -> dict[str, str]:
    """Modules that kept their last name: `folders` is new package -> names of modules that were in `package`."""
    return {f"{package}.{name}": f"{new}.{name}" for new, names in folders.items() for name in names.split()}


# Old -> new module; modules that stayed where they were are not listed.
MODULES: dict[str, str] = {
    **_moved(
        "genjax",
        {
            "genjax.api": "convert edit suite supervise sweep vary",
            "genjax.core": "errors objective tree types",
            "genjax.distributions": "flows likelihoods priors",
            "genjax.evaluation": "chips collectives comparison evaluate flops hardware held_out monitor sampling",
            "genjax.networks.convolutional": "perceptual",
            "genjax.parallel": "hosts placement",
            "genjax.reports": "charts comparison_page comparison_pictures comparison_table exports figures page "
            "pictures results sounds",
            "genjax.training": "checkpoint experiment loop optimizers pretrained profile schedules step writers",
        },
    ),
    "genjax.alternatives": "genjax.core.parts",
    "genjax.bridge": "genjax.networks.huggingface",
    "genjax.cli": "experiments.cli",
    "genjax.completion": "genjax.api.complete",
    "genjax.decode": "genjax.samplers.decoding",
    "genjax.distributed": "genjax.parallel.multihost",
    "genjax.drawing": "genjax.api.sample",
    "genjax.emissions": "genjax.distributions.outputs",
    "genjax.encoded": "genjax.training.encoded_data",
    "genjax.explore": "genjax.reports.latents",
    "genjax.finished": "genjax.reports.runs",
    "genjax.layout": "genjax.core.sharding_rules",
    "genjax.log_probs": "genjax.evaluation.likelihood",
    "genjax.manifest": "genjax.core.checksums",
    "genjax.parallel": "genjax.parallel.mesh",
    "genjax.program_costs": "genjax.evaluation.costs",
    "genjax.quantizers": "genjax.networks.vector_quantizers",
    "genjax.sanity": "genjax.evaluation.metric_sanity",
    "genjax.spreads": "genjax.reports.spread",
    "genjax.stopping": "genjax.training.signals",
    "genjax.stored": "genjax.training.checkpoint_arrays",
    "genjax.stream": "genjax.api.evaluate_stream",
    "genjax.streamed": "genjax.evaluation.streaming",
    "genjax.summary": "experiments.dry_run",
    "genjax.sweep_summary": "genjax.reports.sweep_table",
    "genjax.texts": "genjax.evaluation.text",
    "genjax.variational": "genjax.distributions.elbo",
    "genjax.verbs": "genjax.api.train",
    "genjax.watch": "genjax.reports.sampling_paths",
    "genjax.wording": "genjax.core.overrides",
    "genjax.adversarial.history": "genjax.adversarial.image_pool",
    **_moved(
        "genjax.data",
        {
            "genjax.data.sources": "arrays clips digits emoji files pairs quadrature sound_folder tfds toys",
            "genjax.data.text": "documents text token_files tokenized tokens",
        },
    ),
    "genjax.data.folder": "genjax.data.sources.image_folder",
    **_moved(
        "genjax.decode", {"genjax.samplers.decoding": "beam decoding filters generate model speculative"}
    ),
    **_moved("genjax.diffusion", {"genjax.samplers": "editing inverse"}),
    "genjax.diffusion.bounds": "genjax.distributions.gaussian",
    "genjax.diffusion.history": "genjax.diffusion.loss_history",
    "genjax.diffusion.likelihood": "genjax.diffusion.ode_likelihood",
    **_moved(
        "genjax.flows",
        {
            "genjax.distributions.flows": "base bijector continuous dequantize layers linear models scalar shape",
        },
    ),
    "genjax.hosts.cluster": "genjax.parallel.hosts.cluster",
    "genjax.hosts.hub": "genjax.parallel.hosts.rendezvous",
    "genjax.hosts.judge": "genjax.parallel.hosts.failure_detector",
    "genjax.hosts.member": "genjax.parallel.hosts.client",
    "genjax.hosts.relay": "genjax.parallel.hosts.tcp_proxy",
    "genjax.hosts.wire": "genjax.parallel.hosts.messages",
    **_moved(
        "genjax.metrics",
        {
            "genjax.metrics.distances": "collapse coverage memorization modes pairs scores sliced streaming two_sample",
            "genjax.metrics.features": "classifier extraction features fid inception reference spectrogram",
            "genjax.metrics.text": "documents mauve molecules ngrams overlap text",
        },
    ),
    "genjax.metrics.distance": "genjax.metrics.distances.frechet",
    "genjax.metrics.examined": "genjax.metrics.inputs",
    **_moved(
        "genjax.networks",
        {
            "genjax.networks.adversarial": "dcgan patchgan resgan stylegan2 translators",
            "genjax.networks.autoregressive": "made pixelcnn pixelcnnpp pixelrnn raster recurrent streams wavenet",
            "genjax.networks.convolutional": "conv inception ladder resnet unet",
            "genjax.networks.layers": "blocks equalised minibatch ops positions resample segments",
            "genjax.networks.transformers": "attention dit experts transformer",
        },
    ),
    "genjax.networks.adapters": "genjax.networks.nnx",
    "genjax.networks.cache": "genjax.networks.layers.kv_cache",
    "genjax.networks.cpu": "genjax.networks.layers.cpu_ops",
    "genjax.networks.embed": "genjax.networks.layers.time_features",
    "genjax.networks.layers": "genjax.networks.layers.linen",
    "genjax.networks.packed": "genjax.networks.layers.weight_quantization",
    "genjax.networks.plain": "genjax.networks.layers.plain_ops",
    "genjax.networks.schedule": "genjax.networks.noise_schedule",
    "genjax.networks.tokens": "genjax.networks.transformers.token_transformer",
    "genjax.networks.walker": "genjax.networks.layers.incremental",
    **_moved(
        "genjax.objectives",
        {
            "genjax.objectives.adversarial": "aae bigan cyclegan gan pix2pix stylegan",
            "genjax.objectives.diffusion": "consistency diffusion distillation improved_ddpm interpolant mean_flow "
            "progressive reflow score_matching token_diffusion vdm",
            "genjax.objectives.latent": "ladder latent vae vqgan vqvae vqvae2",
        },
    ),
    **_moved("genjax.quantizers", {"genjax.networks.vector_quantizers": "base codebook gumbel scalar"}),
}

# Old -> new reference of what was renamed, or moved without the rest of its module.
NAMES: dict[str, str] = {
    f"genjax.{old}": f"genjax.{new}"
    for old, new in {
        "adversarial.augment:Carried": "adversarial.augment:State",
        "adversarial.augment:Change": "adversarial.augment:ImageTransform",
        "adversarial.history:History": "adversarial.image_pool:ImagePool",
        "adversarial.penalties:lazily": "adversarial.penalties:lazy_cost",
        "adversarial.penalties:on_squared_slopes": "adversarial.penalties:penalise_squared_norm",
        "adversarial.slopes:of_slopes": "adversarial.slopes:penalise_gradient",
        "data.clips:cut": "data.sources.clips:pad_or_truncate",
        "data.documents:Endings": "data.text.documents:DocumentVocabulary",
        "data.emoji:on_white": "data.sources.emoji:composite_on_white",
        "data.emoji:shrunk": "data.sources.emoji:downsample",
        "data.examples:Some": "data.examples:Subset",
        "data.examples:cut": "data.examples:slice_windows",
        "data.packing:lay": "data.packing:fill_rows",
        "data.pairs:beside": "data.sources.pairs:side_by_side",
        "data.pairs:enlarged": "data.sources.pairs:enlarge",
        "data.pairs:table": "data.sources.pairs:pair_table",
        "data.permutation:scattered": "data.permutation:permutation_at",
        "data.permutation:shuffled": "data.permutation:permutation",
        "data.permutation:words": "data.permutation:random_words",
        "data.text:parted": "data.text.text:split_contiguous",
        "decode.model:of_walker": "samplers.decoding.model:of_incremental",
        "diffusion.history:forgotten": "diffusion.loss_history:empty",
        "diffusion.history:remember": "diffusion.loss_history:update",
        "diffusion.interpolants:clock": "diffusion.interpolants:time_change",
        "diffusion.times:spread": "diffusion.times:stratified",
        "emissions:Emission": "distributions.outputs:OutputDistribution",
        "encoded:fingerprint": "data.codes:fingerprint",
        "flows.bijector:run_net": "distributions.flows.bijector:apply_net",
        "flows.bijector:start_net": "distributions.flows.bijector:init_net",
        "layout:gathered": "core.sharding_rules:gather_parameter",
        "layout:on": "core.sharding_rules:use_mesh",
        "likelihoods:Settled": "distributions.likelihoods:FittedScale",
        "likelihoods:begin": "distributions.likelihoods:init_extra",
        "likelihoods:settle": "distributions.likelihoods:fit_scale",
        "likelihoods:settled": "distributions.likelihoods:fitted",
        "metrics.distance:Kernel": "metrics.distances.mmd:Kernel",
        "metrics.distance:Polynomial": "metrics.distances.mmd:Polynomial",
        "metrics.distance:RBF": "metrics.distances.mmd:RBF",
        "metrics.distance:gaussian_mmd": "metrics.distances.mmd:gaussian_mmd",
        "metrics.distance:kernel_distance": "metrics.distances.mmd:kernel_distance",
        "metrics.distance:kernel_mmd": "metrics.distances.mmd:kernel_mmd",
        "networks.cache:Turn": "networks.layers.kv_cache:CacheUpdate",
        "networks.layers:dealt": "networks.layers.linen:regroup",
        "networks.raster:on_time": "networks.autoregressive.raster:shift_back",
        "networks.segments:begins": "networks.layers.segments:starts",
        "networks.walker:Walker": "networks.layers.incremental:IncrementalDecoder",
        "objectives.common:sum_dims": "core.arrays:sum_dims",
        "objectives.gan:Judge": "objectives.adversarial.gan:Critic",
        "quantizers.codebook:some_rows": "networks.vector_quantizers.codebook:random_rows",
        "samplers.adaptive:Solver": "diffusion.ode:Solver",
        "samplers.adaptive:integrate": "diffusion.ode:integrate",
        "samplers.adaptive:worst_example": "diffusion.ode:worst_example",
        "samplers.ode:OneStep": "samplers.ode:SingleStep",
        "samplers.scan:Walk": "samplers.scan:SamplerState",
        "sweep:Trial": "training.variations:Trial",
        "tree:replace": "core.parts:replace",
        "verbs:load_state": "training.workdir:load_state",
        "verbs:reopen": "training.workdir:reopen",
        "verbs:reopen_trained": "training.workdir:reopen_trained",
    }.items()
}

# "reference.old field" -> new field.
FIELDS: dict[str, str] = {"genjax.objectives.autoregressive:Autoregressive.emission": "output"}

# Objectives whose fields `classes` and `label_dropout` became `condition`, and the default of their `label_dropout`.
LABELS = "genjax.conditioning.labels:Labels"
LABEL_DROPOUT: dict[str, float] = {
    f"genjax.objectives.{name}": default
    for name, default in {
        "adversarial.aae:AAE": 0.0,
        "adversarial.bigan:BiGAN": 0.0,
        "adversarial.gan:GAN": 0.0,
        "autoregressive:Autoregressive": 0.0,
        "diffusion.consistency:Consistency": 0.0,
        "diffusion.diffusion:Diffusion": 0.1,
        "diffusion.improved_ddpm:ImprovedDDPM": 0.0,
        "diffusion.interpolant:Interpolant": 0.0,
        "diffusion.mean_flow:MeanFlow": 0.1,
        "diffusion.score_matching:SlicedScoreMatching": 0.1,
        "diffusion.token_diffusion:TokenDiffusion": 0.1,
        "diffusion.vdm:VDM": 0.0,
        "flow:Flow": 0.0,
        "latent.ladder:LadderVAE": 0.0,
        "latent.vae:VAE": 0.0,
    }.items()
}

# "reference.field" whose values are names of metrics.
METRIC_FIELDS = ("genjax.training.experiment:Monitor.metric",)

# Old -> new keys of evaluation.json, streamed.json and metrics.jsonl. Suffixes ("_reference", "_test") and prefixes
# ("monitor/", section names) of a key are unchanged.
METRICS: dict[str, str] = {
    "told_apart": "c2st_accuracy",
    "neighbours_alike": "one_nn_accuracy",
    "twins": "near_duplicates",
    "diversity_least": "diversity_min",
    "repeated_4": "rep_4",
    "in_words": "summary",
    "moves": "updated",
}
SUFFIXES = ("_reference", "_test", "_std", "_reference_std")


def reference(old: str) -> str:
    """The present "module:name" of a class or function of format 1; unchanged if it was not renamed."""
    module, _, name = old.partition(":")
    first, dot, inner = name.partition(".")
    if (new := NAMES.get(f"{module}:{first}")) is not None:
        return new + dot + inner
    return f"{MODULES.get(module, module)}:{name}"


def metric(old: str) -> str:
    """The present name of a metric of format 1, as in metrics.jsonl; unchanged if it was not renamed."""
    prefix, slash, name = old.rpartition("/")
    for suffix in ("", *SUFFIXES):
        if name.endswith(suffix) and (new := METRICS.get(name.removesuffix(suffix))) is not None:
            return prefix + slash + new + suffix
    return old
