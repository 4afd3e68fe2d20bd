"""Low-rank adaptation: it starts from the base, keeps it frozen, and reaches the best update of its rank."""

import dataclasses
import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import Untrained, on_one_device
from test_autoregressive import KEY, NETS
from test_networks import normal

from genjax.api import convert
from genjax.api.complete import complete
from genjax.api.evaluate import evaluate
from genjax.api.load import load
from genjax.core.errors import UserError
from genjax.core.objective import Adapter, Aux, Context, Player
from genjax.data import Data, TextFile
from genjax.networks import huggingface
from genjax.networks.transformers.token_transformer import gpt2
from genjax.objectives.autoregressive import Autoregressive
from genjax.objectives.lora import LoRA, matrices
from genjax.samplers.decoding import Decoding
from genjax.training import experiment as experiments
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import Experiment
from genjax.training.optimizers import AdamW
from genjax.training.pretrained import Pretrained

CTX = Context(KEY, jnp.int32(0))


@dataclass(frozen=True)
class Linear:
    """Least squares, y = x W, and a second player without matrices."""

    condition = None

    def init(self, key, batch):
        shape = (batch["x"].shape[1], batch["y"].shape[1])
        return {"net": {"kernel": jnp.ones(shape), "bias": jnp.zeros(3)}, "other": {"bias": jnp.ones(2)}}, {}

    def players(self):
        idle = lambda params, extra, batch, ctx: (
            jnp.sum(params["other"]["bias"]),
            Aux({}, {"seen": ctx.step}),
        )
        return {"net": Player(self.loss), "other": Player(idle)}

    def loss(self, params, extra, batch, ctx):
        return 0.5 * jnp.mean(jnp.sum((batch["x"] @ params["net"]["kernel"] - batch["y"]) ** 2, 1)), Aux()

    def sample(self, params, extra, key, num, cond=None):
        return params["net"]["kernel"]


@pytest.mark.parametrize("rank", [1, 3])
def test_training_reaches_the_best_update_of_the_rank(rank):
    """With white inputs the best update of rank r is the truncated SVD (Eckart & Young); full rank is full
    fine-tuning."""
    x = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 4)))[0] * 40**0.5
    y = x @ np.array([[3.0, 1, 0], [1, 2, 1], [0, 1, 2], [1, 0, 0]]) + 0.1 * normal(1, 40, 3)
    batch = {"x": jnp.asarray(x, jnp.float32), "y": jnp.asarray(y, jnp.float32)}
    best, rest = np.linalg.lstsq(x, y)[:2]
    singular = np.linalg.svd(best - 1.0, compute_uv=False)
    optimum = 0.5 * (np.sum(rest) / 40 + np.sum(singular[rank:] ** 2))
    lora = LoRA(Linear(), Untrained(), rank=rank, alpha=float(rank))
    params, extra = lora.init(KEY, batch)
    loss = lambda own: lora.players()["net"].loss({**params, "net": own}, extra, batch, CTX)[0]

    def step(own, _):
        return jax.tree.map(lambda p, g: p - 0.05 * g, own, jax.grad(loss)(own)), None

    trained = jax.jit(lambda own: jax.lax.scan(step, own, None, 3000)[0])(params["net"])
    assert float(loss(params["net"])) > optimum + 0.5
    assert float(loss(trained)) == pytest.approx(optimum, abs=1e-4)
    assert list(params["net"]) == ["kernel"]
    assert params["other"] == {}
    _, aux = lora.players()["other"].loss(params, extra, batch, CTX)
    assert aux.extra["inner"]["seen"] == 0


X = {"x": normal(0, 8, 4), "y": normal(1, 8, 3)}
TOKEN_MODEL = Autoregressive(NETS["tied, window"], (4,), 3)
TOKENS = {"x": jnp.asarray([[0, 1, 2, 1], [2, 2, 0, 1]])}


@pytest.mark.parametrize(
    ("inner", "batch", "path"),
    [
        (Linear(), X, "kernel$"),
        pytest.param(TOKEN_MODEL, TOKENS, "blocks/.*kernel$", marks=pytest.mark.slow),
    ],
)
def test_training_starts_from_the_base_with_the_papers_gradients(inner, batch, path):
    """Merged parameters bit for bit; then dA = s G B^T and dB = s A^T G with G the gradient in the merged matrix."""
    lora = LoRA(inner, Untrained(), path, rank=2, alpha=3.0)
    assert isinstance(lora, Adapter)
    factors, extra = jax.jit(lora.init)(KEY, batch)

    @jax.jit
    def losses(factors):
        merged = lora.merged(factors, extra)[0]
        wrapped = lambda params: lora.players()["net"].loss(params, extra, batch, CTX)[0]
        plain = lambda params: inner.loss(params, {}, batch, CTX)[0]
        return (
            wrapped(factors),
            plain(extra["base"]),
            jax.grad(wrapped)(factors),
            jax.grad(plain)(merged),
            merged,
        )

    initial, base, *_, merged = losses(factors)
    jax.tree.map(np.testing.assert_array_equal, merged, extra["base"])
    assert float(initial) == pytest.approx(float(base), rel=1e-6)
    moved = jax.tree.map(lambda a: a + 0.1, factors)
    changed, _, ours, whole, merged = losses(moved)
    assert abs(float(changed - base)) > 1e-4
    old, gradients, new = (matrices(tree["net"]) for tree in (extra["base"], whole, merged))
    assert set(ours["net"]) == {name for name in old if re.search(path, name)}
    for name, w in new.items():
        if name not in ours["net"]:
            np.testing.assert_array_equal(w, old[name])
            continue
        g, a, b = (np.float64(x) for x in (gradients[name], moved["net"][name]["A"], moved["net"][name]["B"]))
        np.testing.assert_allclose(w, old[name] + 1.5 * a @ b, atol=1e-5)
        np.testing.assert_allclose(ours["net"][name]["A"], 1.5 * g @ b.swapaxes(-1, -2), atol=1e-5)
        np.testing.assert_allclose(ours["net"][name]["B"], 1.5 * a.swapaxes(-1, -2) @ g, atol=1e-5)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """Work directories of a small language model and of its adapter after three steps, with the adapter's state."""
    root = tmp_path_factory.mktemp("lora")
    (root / "config.py").write_text("")
    (root / "text.txt").write_text("the cat sat on the mat; the dog sat on the log. " * 40)
    net = gpt2(2, 16, 2, places=16)
    inner = Autoregressive(net, (16,), 256, start=False, first=32, decoding=Decoding(temperature=0.0))
    taught = Experiment(
        inner, Data(TextFile(str(root / "text.txt"), 16)), AdamW(learning_rate=3e-2), steps=3, batch_size=8
    )
    lora = LoRA(inner, Pretrained(str(root / "base")), path="qkv|mlp", rank=4)
    runs = {"base": taught, "lora": dataclasses.replace(taught, objective=lora)}
    for name, experiment in runs.items():
        run = on_one_device(experiment)
        state = run.make_state()
        for number in range(3):
            state, _ = run.compiled(state, run.batch(number, 1), False)
        (root / name).mkdir()
        experiments.save(experiment, str(root / "config.py"), root / name)
        with Checkpoints(root / name / "checkpoints") as checkpoints:
            checkpoints.save(3, state)
    return root, lora, jax.device_get(state)


@pytest.mark.slow
def test_base_is_unchanged_and_merged_models_agree(adapted):
    root, lora, state = adapted
    taught = Pretrained(str(root / "base")).parameters()[0]
    jax.tree.map(np.testing.assert_array_equal, state.extra["base"], taught)
    assert all(np.abs(own["B"]).max() > 0 for own in state.ema["net"].values())
    x = {"x": jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 16)))}
    on_device = lambda tree: jax.tree.map(jnp.asarray, tree)
    state, taught = on_device(state), on_device(taught)
    kept = np.asarray(lora.log_prob(state.ema, state.extra, x, KEY))
    assert np.abs(kept - np.asarray(lora.inner.log_prob(taught, {}, x, KEY))).max() > 1e-3
    convert.export_merged(root / "lora", root / "merged")
    merged = Pretrained(str(root / "merged"))
    assert merged.objective() == lora.inner
    ours = np.asarray(lora.inner.log_prob(on_device(merged.parameters()[0]), {}, x, KEY))
    np.testing.assert_allclose(ours, kept, rtol=1e-6)
    texts = [complete(load(root / name), "the c") for name in ("lora", "merged")]
    assert texts[0] == texts[1]
    convert.export_weights(root / "lora", root / "out")
    net, params, _ = huggingface.read(root / "out")
    given = dataclasses.replace(lora.inner, net=net).log_prob({"net": on_device(params)}, {}, x, KEY)
    np.testing.assert_allclose(given, kept, rtol=1e-6)
    report = evaluate(load(root / "lora", {"evaluation.num": 8, "evaluation.batch_size": 8}))
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert report["parameters_trained"] == trained < report["parameters"]
    with pytest.raises(UserError, match="no adapter to merge"):
        convert.export_merged(root / "base", root / "other")


def test_invalid_arguments_raise():
    with pytest.raises(UserError, match="rank=0"):
        LoRA(TOKEN_MODEL, Untrained(), rank=0)
    with pytest.raises(UserError, match=r"'attention': the paths are .*params/blocks/qkv/kernel"):
        jax.eval_shape(
            LoRA(TOKEN_MODEL, Untrained(), "attention").init, KEY, {"x": jnp.zeros((1, 4), jnp.int32)}
        )
