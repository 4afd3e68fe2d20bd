"""Language models against transformers: the same weights give the same logits, greedy tokens, filters and beams."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.generation import logits_process

from genjax.networks import huggingface
from genjax.samplers.decoding import Decoding, filters, generate
from genjax.samplers.decoding.beam import Beam, beam_search
from genjax.samplers.decoding.model import of_incremental

pytestmark = pytest.mark.peers
WIDTH = 37  # tokens
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=WIDTH,
        n_positions=24,
        n_embd=32,
        n_layer=3,
        n_head=4,
        resid_pdrop=0,
        attn_pdrop=0,
        embd_pdrop=0,
    ),
    "llama": lambda: transformers.LlamaConfig(
        vocab_size=WIDTH,
        hidden_size=32,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=24,
    ),
}


def quiet(config):
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    return config


@functools.cache
def theirs(kind, scale=8.0):
    """A model with random weights, scaled so that its distributions are far from uniform."""
    torch.manual_seed(0)
    make = transformers.GPT2LMHeadModel if kind == "gpt2" else transformers.LlamaForCausalLM
    model = make(quiet(CONFIGS[kind]())).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@functools.cache
def ours(kind, tmp):
    """The same model, read from files."""
    theirs(kind).save_pretrained(tmp)
    net, params, _ = huggingface.read(tmp)
    return net, jax.tree.map(jnp.asarray, params)


@pytest.fixture(scope="module", params=CONFIGS)
def both(request, tmp_path_factory):
    net, params = ours(request.param, tmp_path_factory.mktemp(request.param))
    return request.param, theirs(request.param), net, params


IDS = np.random.default_rng(0).integers(0, WIDTH, (5, 20))


def test_logits_agree_in_single_precision(both):
    _, peer, net, params = both
    with torch.no_grad():
        expected = peer(torch.tensor(IDS)).logits.numpy()
    found = np.asarray(jax.jit(functools.partial(net.apply, out=WIDTH))(params, jnp.asarray(IDS)))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(expected).max() > 1.0


def test_logits_agree_in_double_precision(both):
    """The peer's rotary angles and RMS norms, which are always float32, are replaced by float64 ones."""
    kind, peer, net, params = both
    peer = type(peer)(peer.config).double().eval()
    peer.load_state_dict({name: value.double() for name, value in theirs(kind).state_dict().items()})

    def rotary(x, position_ids):
        d = net.width // net.heads
        omega = net.rotary_base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
        angles = position_ids[..., None].double() * omega
        phases = torch.cat([angles, angles], -1)
        return phases.cos(), phases.sin()

    def norm(module):
        return lambda x: (
            module.weight * x / torch.sqrt(x.square().mean(-1, keepdim=True) + module.variance_epsilon)
        )

    if kind == "llama":
        peer.model.rotary_emb.forward = rotary
        for module in peer.modules():
            if hasattr(module, "variance_epsilon"):
                module.forward = norm(module)
    with torch.no_grad():
        expected = peer(torch.tensor(IDS)).logits.numpy()
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), params)
        found = np.asarray(net.clone(dtype="float64").apply(wide, jnp.asarray(IDS), out=WIDTH))
    assert found.dtype == np.float64
    assert np.abs(found - expected).max() < 1e-10 * np.abs(expected).max()


def model_of(net, params, places):
    decoder = net.incremental(params, (places,), out=WIDTH)
    return of_incremental(decoder, lambda out, here, channel: out[:, 0], 1, WIDTH, 0)


def test_greedy_continuations_are_identical(both):
    _, peer, net, params = both
    expected = peer.generate(
        torch.tensor(IDS[:, :6]),
        attention_mask=torch.ones(5, 6),
        max_new_tokens=14,
        do_sample=False,
        pad_token_id=0,
    )
    greedy = Decoding(temperature=0.0)
    run = jax.jit(
        lambda x: generate(model_of(net, params, 20), greedy, jax.random.key(0), x, jnp.full(5, 6), 20)
    )
    np.testing.assert_array_equal(run(jnp.asarray(IDS[:, :6])).tokens, expected.numpy())


PAIRS = {
    "top-k": (filters.TopK(5), logits_process.TopKLogitsWarper(5)),
    "top-p": (filters.TopP(0.8), logits_process.TopPLogitsWarper(0.8)),
    "min-p": (filters.MinP(0.1), logits_process.MinPLogitsWarper(0.1)),
    "typical": (filters.Typical(0.7), logits_process.TypicalLogitsWarper(0.7)),
    "temperature": (filters.Temperature(0.7), logits_process.TemperatureLogitsWarper(0.7)),
    "repetition": (filters.Repetition(1.3), logits_process.RepetitionPenaltyLogitsProcessor(1.3)),
    "no repeat 2": (filters.NoRepeat(2), logits_process.NoRepeatNGramLogitsProcessor(2)),
    "no repeat 3": (filters.NoRepeat(3), logits_process.NoRepeatNGramLogitsProcessor(3)),
    "banned": (
        filters.Banned(((3,), (1, 2), (4, 5, 6))),
        logits_process.NoBadWordsLogitsProcessor([[3], [1, 2], [4, 5, 6]], eos_token_id=torch.tensor([0])),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_filters_keep_the_same_sets_with_the_same_values(name):
    mine, other = PAIRS[name]
    rng = np.random.default_rng(1)
    run = jax.jit(mine)
    for length in (6, 30):
        logits = (3 * rng.normal(size=(50, 8))).astype(np.float32)
        tokens = rng.integers(0, 8, (50, length))
        expected = other(torch.tensor(tokens), torch.tensor(logits)).numpy()
        padded = np.pad(tokens, ((0, 0), (0, 5)), constant_values=7)
        found = np.asarray(run(jnp.asarray(logits), jnp.asarray(padded), jnp.full(50, length)))
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("stopping", ["full", "now", "never"])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -1.0])
def test_beams_are_the_same_sequences_with_the_same_scores(both, stopping, penalty):
    """Ten prompts for each of 24 settings, with and without early ends."""
    _, peer, net, params = both
    prompt = np.random.default_rng(2).integers(0, WIDTH, (10, 4))
    stops = (3, 11, 17, 20)
    found = jax.jit(
        lambda x: beam_search(
            model_of(net, params, 16), Beam(3, penalty, stopping), Decoding(), x, jnp.full(10, 4), 12, stops
        )
    )(jnp.asarray(prompt))
    expected = peer.generate(
        torch.tensor(prompt),
        attention_mask=torch.ones(10, 4),  # else prompt tokens equal to the pad token would be masked
        num_beams=3,
        num_return_sequences=3,
        max_new_tokens=12,
        length_penalty=penalty,
        early_stopping={"full": True, "now": False, "never": "never"}[stopping],
        eos_token_id=list(stops),
        pad_token_id=1,
        return_dict_in_generate=True,
        output_scores=True,
        do_sample=False,
    )
    sequences = expected.sequences.numpy().reshape(10, 3, -1)[:, :, 4:]
    np.testing.assert_allclose(
        np.asarray(found.score).ravel(), expected.sequences_scores.numpy(), rtol=1e-4, atol=1e-5
    )
    ended = 0
    for mine, length, other in zip(
        np.asarray(found.tokens).reshape(30, -1),
        np.asarray(found.length).ravel(),
        sequences.reshape(30, -1),
        strict=True,
    ):
        np.testing.assert_array_equal(mine[:length], other[:length])
        assert np.all(other[length:] == 1)
        ended += length < 12
    assert ended > 0 or penalty == 2.0, "a large penalty favours long sequences: none may end early"


def test_written_files_are_read_by_the_peer(both, tmp_path):
    kind, peer, net, params = both
    assert huggingface.write(tmp_path, net, params, {"eos_token_id": 3}) == kind
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 3
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        np.testing.assert_allclose(
            again(torch.tensor(IDS)).logits.numpy(),
            peer(torch.tensor(IDS)).logits.numpy(),
            rtol=1e-5,
            atol=1e-5,
        )
